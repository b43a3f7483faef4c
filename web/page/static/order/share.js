// An order as an address, and back.
export function addressOf({ history, previews, ...order }) {
	return `${location.origin}${location.pathname}?${new URLSearchParams(order)}`;
}

/** What this address asks for; null where it asks for nothing. It is never run by itself. */
export function shared() {
	const query = new URLSearchParams(location.search);
	return query.has("prompt") ? Object.fromEntries(query) : null;
}
