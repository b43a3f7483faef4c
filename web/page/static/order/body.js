/** What the server is asked for: a conversation goes on with what was said before. Without what only this page needs. */
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
