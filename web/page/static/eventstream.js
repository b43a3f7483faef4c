// Server-sent events from a fetch: an EventSource can neither be told where to begin nor say why it has failed.

/** The server sends a comment every ten seconds; silence beyond this is a lost connection. */
const SILENCE = 35_000;

export async function* events(response) {
	const reader = response.body.getReader();
	const decoder = new TextDecoder();
	let rest = "";
	try {
		for (;;) {
			const { done, value } = await within(SILENCE, reader.read());
			if (done) return;
			const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
			rest = blocks.pop();
			for (const block of blocks) {
				const event = read(block);
				if (event.data !== undefined) yield event;
			}
		}
	} finally {
		reader.cancel().catch(() => {}); // it may have failed already
	}
}

function read(block) {
	const event = { name: "message", id: null };
	for (const line of block.split("\n")) {
		const [field, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
		if (field === "event") event.name = value;
		else if (field === "id") event.id = value;
		else if (field === "data") event.data = JSON.parse(value);
	}
	return event;
}

function within(milliseconds, promise) {
	let timer;
	const late = new Promise((_, reject) => {
		timer = setTimeout(() => reject(new Error("silence")), milliseconds);
	});
	return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
