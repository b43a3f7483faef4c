// One generation, followed to its end through lost connections and reloads of the page.
import { ProblemError, cancel, submit, watch } from "./api.js";

const KEPT = "job";
const PAUSE = 500;
const LONGEST_PAUSE = 8_000;

export class Job {
	#leave = new AbortController();
	#after = null;
	#stop = false;
	#refused = false;

	constructor(order, key = randomKey(), id = null) {
		this.order = order;
		this.key = key;
		this.id = id;
	}

	/** The one that was running when the page was left. */
	static kept() {
		try {
			const { order, key, id } = JSON.parse(sessionStorage.getItem(KEPT));
			return new Job(order, key, id);
		} catch {
			return null; // there is none
		}
	}

	/** Call `listener`'s method of each event's name; `lost` and `found`, too. A ProblemError ends it. */
	async follow(listener) {
		let pause = PAUSE;
		this.#keep();
		try {
			for (;;) {
				try {
					if (this.id === null) {
						this.id = await submit(this.order, this.key, this.#leave.signal);
						this.#keep();
					}
					if (this.#stop) await cancel(this.id);
					for await (const { name, data, id } of watch(this.id, this.#after, this.#leave.signal)) {
						listener.found();
						pause = PAUSE;
						this.#after = id ?? this.#after;
						await listener[name]?.(data); // a result is kept before the job is forgotten
						if (name === "result" || name === "error") return;
					}
				} catch (error) {
					if (this.#leave.signal.aborted) return;
					if (this.#stop && error.slug === "not-found") return; // stopped twice, it was deleted
					this.#refused = this.id !== null && error.slug === "unauthorized"; // it goes on, and is found again with a key
					if (error instanceof ProblemError && (this.id === null || !passes(error.problem.status))) throw error;
				}
				listener.lost();
				await online(pause, this.#leave.signal);
				if (this.#leave.signal.aborted) return;
				pause = Math.min(pause * 2, LONGEST_PAUSE);
			}
		} finally {
			if (!this.#refused) sessionStorage.removeItem(KEPT);
		}
	}

	/** Cancel it on the server; asked a second time, give it up here. */
	async stop() {
		if (this.#stop) this.#leave.abort();
		this.#stop = true;
		if (this.id !== null) await cancel(this.id).catch(() => {}); // `follow` tries again
	}

	#keep() {
		sessionStorage.setItem(KEPT, JSON.stringify({ order: this.order, key: this.key, id: this.id }));
	}
}

/** Whether a refusal says nothing of the job itself: it goes on, and so do we. */
function passes(status) {
	return status >= 500 || status === 408 || status === 429;
}

/** Unlike crypto.randomUUID, this works without TLS. */
function randomKey() {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Until it is worth another try: after a pause, or when the network is back. */
function online(pause, signal) {
	return new Promise((resolve) => {
		const done = () => {
			clearTimeout(timer);
			removeEventListener("online", done);
			signal.removeEventListener("abort", done);
			resolve();
		};
		const timer = setTimeout(done, pause);
		addEventListener("online", done);
		signal.addEventListener("abort", done);
	});
}
