/** Load the style of what is on demand, before it is shown. */
export function stylesheet(name) {
	const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL(name, import.meta.url) });
	document.head.append(link);
	return new Promise((resolve) => (link.onload = link.onerror = resolve));
}
