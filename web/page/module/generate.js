// A client of POST /generate for browsers and Node 20 or later. Its types are in generate.d.ts.

/** The server sends a comment every ten seconds; silence beyond this is a lost connection. */
const SILENCE = 35_000;
/** How long what may be repeated is tried without a word from the server. */
const PATIENCE = 60_000;
const PAUSE = 500;
const LONGEST_PAUSE = 8_000;
const HERE = import.meta.url.startsWith("http") ? new URL(".", import.meta.url).href : undefined;
const STREAM = { Accept: "text/event-stream" };

export class ProblemError extends Error {
	name = "ProblemError";

	constructor(problem) {
		super(problem.detail);
		this.problem = problem;
	}

	get slug() {
		return this.problem.type.slice(this.problem.type.lastIndexOf(":") + 1);
	}
}

export const generate = async (order, options) => (await call("/generate", posted(order, options))).json();

export async function* stream(order, options = {}) {
	if (options.resume) {
		const made = await submit(order, options);
		const delivered = new DeliveredText();
		try {
			for await (const event of made.events({ signal: options.signal })) {
				const fresh = delivered.fresh(event);
				if (fresh) yield fresh;
			}
		} finally {
			made.cancel().catch(() => {}); // nobody else knows of it
		}
		return;
	}
	for await (const event of events(await call("/generate", posted(order, options, STREAM)))) {
		yield passed(event);
		if (event.event === "result") return;
	}
	throw new Error("The connection broke off.");
}

export async function submit(order, { idempotencyKey = randomKey(), ...options } = {}) {
	const request = posted(order, options, { Prefer: "respond-async", "Idempotency-Key": idempotencyKey });
	address("/generate", options); // what is wrong here is not tried again
	const response = await repeated(options, () => call("/generate", request), () => false);
	return job((await response.json()).id, options);
}

export const job = (id, options) => new Job(id, options);

class Job {
	lastEventId = null;
	#options;

	constructor(id, { signal, ...options } = {}) {
		this.id = id;
		this.#options = options;
	}

	status = async (options) => (await this.#call(options, { Accept: "application/json" })).json();

	async *events({ after = null, ...options } = {}) {
		const retry = new Retry({ ...this.#options, ...options });
		this.lastEventId = after;
		for (let end = null; !end; ) {
			let failure = new Error("The connection broke off.");
			try {
				const last = this.lastEventId && { "Last-Event-ID": this.lastEventId };
				const response = await this.#call(options, { ...STREAM, ...last });
				if (response.status === 204) end = outcome(await this.status(options));
				else {
					for await (const event of events(response)) {
						retry.found();
						this.lastEventId = event.id ?? this.lastEventId;
						if (event.event === "result" || event.event === "error") {
							end = event;
							break;
						}
						yield event;
					}
				}
			} catch (error) {
				failure = error;
			}
			if (end) yield passed(end);
			else await retry.after(failure);
		}
	}

	async wait(options) {
		for await (const { event, data } of this.events(options)) if (event === "result") return data;
	}

	async cancel(options) {
		let tries = 0;
		await repeated({ ...this.#options, ...options }, async () => {
			tries += 1;
			try {
				await this.#call({ ...options, method: "DELETE" });
			} catch (error) {
				if (error.slug !== "not-found" || tries === 1) throw error; // else an earlier try has ended it
			}
		});
	}

	#call(options, headers) {
		return call(`/generations/${encodeURIComponent(this.id)}`, { ...this.#options, ...options, headers });
	}
}

/** A job that is begun again, because the server that ran it has died, writes its text once more: that is compared with
 * what a stream has given, and only the rest is passed on. */
class DeliveredText {
	#texts = {};

	/** What is not given yet of the event; null where that is nothing. */
	fresh(event) {
		const { event: kind, data } = event;
		if (kind === "status" && data.state === "queued") {
			for (const text of Object.values(this.#texts)) text.written = 0;
		} else if (kind === "reasoning" || kind === "token") {
			const text = this.#rest(kind, data.text);
			const logprobs = data.logprobs && this.#rest("logprobs", data.logprobs);
			return text || logprobs?.length ? { ...event, data: { ...data, text, ...(logprobs && { logprobs }) } } : null;
		} else if (kind === "tool_call") {
			const written = data.name === undefined ? data.arguments : `${data.name}\n${data.arguments}`;
			const rest = this.#rest(data.index, written);
			if (rest !== written) return rest ? { ...event, data: { index: data.index, arguments: rest } } : null;
		} else if (kind === "result") {
			const whole = { token: data.text, reasoning: data.reasoning_content };
			for (const name of ["token", "reasoning"]) {
				if (!(whole[name] ?? "").startsWith(this.#texts[name]?.given ?? "")) throw diverged();
			}
		}
		return event;
	}

	#rest(place, piece) {
		const of = (this.#texts[place] ??= { given: piece.slice(0, 0), written: 0 });
		const known = of.given.slice(of.written, of.written + piece.length);
		// Log probabilities may round otherwise, but are of the same tokens.
		if (typeof piece === "string" && !piece.startsWith(known)) throw diverged();
		const rest = piece.slice(known.length);
		of.written += piece.length;
		of.given = of.given.concat(rest);
		return rest;
	}
}

const diverged = () =>
	new ProblemError({
		type: "urn:shangcai:problem:diverged",
		title: "The generation was broken off, and asking again gave another one",
		status: 502,
		detail: "The generation was broken off and begun again, and does not begin as it did before.",
	});

export const models = async (options) => (await call("/models", { ...options, cache: "no-cache" })).json();

export const status = async (options) => (await (await call("/status", options)).json()).models;

export const warm = async (model, options) => (await call("/warm", sent({ model }, options))).json();

/** An Idempotency-Key that nobody guesses. Unlike crypto.randomUUID, this works without TLS. */
export function randomKey() {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const posted = (order, options, headers) => sent(typeof order === "string" ? { prompt: order } : order, options, headers);

const sent = (body, options, headers) => ({
	...options,
	method: "POST",
	body: JSON.stringify(body),
	headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
});

function address(path, { url = HERE }) {
	if (url === undefined) throw new TypeError("options.url is missing: the address of the server");
	return new URL(url.replace(/\/?$/, path), globalThis.location?.href).href;
}

async function call(path, { url, key, fetch = globalThis.fetch, headers, method, body, signal, cache = "no-store" } = {}) {
	const authorization = key && { Authorization: `Bearer ${key}` };
	const request = { method, body, signal, cache, headers: { ...headers, ...authorization } };
	const response = await fetch(address(path, { url }), request);
	if (response.ok) return response;
	if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
		throw new ProblemError(await response.json());
	}
	response.body?.cancel().catch(() => {});
	throw new Error(`${response.status} from a gateway`);
}

async function* events(response) {
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
	const event = { event: "message", data: undefined, id: null };
	for (const line of block.split("\n")) {
		const [field, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
		if (field === "event" || field === "id") event[field] = value;
		else if (field === "data") event.data = JSON.parse(value);
	}
	return event;
}

function passed(event) {
	if (event.event === "error") throw new ProblemError(event.data);
	return event;
}

const outcome = ({ result, error }) => (result ? { event: "result", data: result } : { event: "error", data: error });

/** Whether a refusal says nothing of what was asked for. */
const passes = ({ status }) => status >= 500 || status === 408 || status === 429;

async function repeated(options, act, again) {
	const retry = new Retry(options, again);
	for (;;) {
		try {
			return await act();
		} catch (error) {
			await retry.after(error);
		}
	}
}

class Retry {
	#pause = PAUSE;
	#lost = null;

	constructor({ signal, onretry, patience = PATIENCE }, again = passes) {
		Object.assign(this, { signal, onretry, patience, again });
	}

	/** Until the next try is worth it; throws the error where there is to be none. */
	async after(error) {
		this.signal?.throwIfAborted();
		if (error instanceof ProblemError && !this.again(error.problem)) throw error;
		this.#lost ??= Date.now();
		if (Date.now() - this.#lost >= this.patience) throw error;
		this.onretry?.(error);
		await online(this.#pause, this.signal);
		this.signal?.throwIfAborted();
		this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
	}

	found() {
		this.#pause = PAUSE;
		this.#lost = null;
	}
}

/** After a pause, or when the network is back. */
function online(pause, signal) {
	return new Promise((resolve) => {
		const done = () => {
			clearTimeout(timer);
			globalThis.removeEventListener?.("online", done);
			signal?.removeEventListener("abort", done);
			resolve();
		};
		const timer = setTimeout(done, pause);
		globalThis.addEventListener?.("online", done);
		signal?.addEventListener("abort", done);
	});
}

function within(milliseconds, promise) {
	let timer;
	const late = new Promise((_, reject) => {
		timer = setTimeout(() => reject(new Error("The connection is silent.")), milliseconds);
	});
	return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
