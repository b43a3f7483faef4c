// One generation, followed to its end through lost connections and reloads of the page.
import { tab } from "../browser/storage.js";
import { bodyOf } from "../order/order.js";
import { server } from "./api.js";
import { job, randomKey, submit } from "../generate.js";

const KEPT = "job";

export class Job {
	#leave = new AbortController();
	#sent = null;
	#stop = false;

	constructor(order, key = randomKey(), id = null) {
		this.order = order;
		this.key = key;
		this.id = id;
	}

	/** The one that was running when the page was left. */
	static kept() {
		const kept = tab.read(KEPT);
		return kept?.order?.prompt ? new Job(kept.order, kept.key, kept.id) : null;
	}

	/** Send it, unless it was sent. */
	submit(options = this.#patient) {
		if (this.id !== null) return Promise.resolve();
		this.#sent ??= submit(bodyOf(this.order), { ...options, ...server(true), idempotencyKey: this.key }).then(({ id }) => {
			this.id = id;
		});
		return this.#sent;
	}

	/** Call `listener`'s method of each event's name; `lost` and `found`, too. A ProblemError ends it. */
	async follow(listener) {
		const options = { ...this.#patient, onretry: () => listener.lost() };
		this.#keep();
		try {
			await this.submit(options);
			this.#keep();
			if (this.#stop) await this.#cancel();
			for await (const { event, data } of job(this.id, server()).events(options)) {
				listener.found();
				await listener[event]?.(data); // a result is kept before the job is forgotten
			}
		} catch (error) {
			if (error.slug === "unauthorized" && this.id !== null) throw error; // it goes on, and is found again with a key
			tab.remove(KEPT);
			if (this.#leave.signal.aborted) return;
			if (this.#stop && error.slug === "not-found") return; // stopped twice, it was deleted
			throw error;
		}
		tab.remove(KEPT);
	}

	/** Cancel it on the server; asked a second time, give it up here. */
	async stop() {
		if (this.#stop) this.#leave.abort();
		this.#stop = true;
		if (this.id !== null) await this.#cancel();
	}

	#cancel() {
		return job(this.id, server()).cancel(this.#patient).catch(() => {}); // its events say what has become of it
	}

	/** Whoever looks at the page says when it has been enough. */
	get #patient() {
		return { signal: this.#leave.signal, patience: Infinity };
	}

	#keep() {
		tab.set(KEPT, JSON.stringify({ order: this.order, key: this.key, id: this.id }));
	}
}
