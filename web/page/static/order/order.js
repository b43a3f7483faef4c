// An order, as the server and others are told of it.

/** What the server is asked for: a conversation goes on with what was said before. */
export function bodyOf({ history, ...order }) {
	if (!history?.length) return order;
	const { prompt, ...rest } = order;
	return { messages: [...history, { role: "user", content: prompt }], ...rest };
}

/** The conversation after an answer. */
export const after = ({ order, text }) => [
	...(order.history ?? []),
	{ role: "user", content: order.prompt },
	{ role: "assistant", content: text },
];

export function addressOf({ history, previews, ...order }) {
	return `${location.origin}${location.pathname}?${new URLSearchParams(order)}`;
}

/** What this address asks for, which is never run by itself; null where it asks for nothing. */
export function shared() {
	const query = new URLSearchParams(location.search);
	return query.has("prompt") ? Object.fromEntries(query) : null;
}
