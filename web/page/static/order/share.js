// An order as an address, and back.
const NAMES = ["model", "seed", "temperature", "top_p", "max_tokens", "stop", "size", "steps", "guidance", "n", "negative_prompt"];

export function addressOf(order) {
	const query = new URLSearchParams({ prompt: order.prompt });
	for (const name of NAMES) if (order[name] !== undefined) query.set(name, order[name]);
	return `${location.origin}${location.pathname}?${query}`;
}

/** What this address asks for; null where it asks for nothing. It is never run by itself. */
export function shared() {
	const query = new URLSearchParams(location.search);
	if (!query.has("prompt")) return null;
	return Object.fromEntries(["prompt", ...NAMES].filter((name) => query.has(name)).map((name) => [name, query.get(name)]));
}
