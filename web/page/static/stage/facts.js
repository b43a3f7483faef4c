// What is known of a result: how it was made, and how fast.
import { amount, t } from "../texts/texts.js";

/** When the parts of an order began, as far as that was seen here. */
export class Stopwatch {
	#waking = null;
	#running = null;

	woken(seconds = 0) {
		this.#waking ??= performance.now() - seconds * 1000;
	}

	ran() {
		this.#running ??= performance.now();
	}

	/** Begun anew. */
	queued() {
		this.#running = null;
	}

	/** Seconds. `seen`: whether the order was followed from its beginning. */
	times({ timing, usage, steps }, seen) {
		const woke = this.#waking === null || this.#running === null ? 0 : (this.#running - this.#waking) / 1000;
		const made = seen && this.#running !== null ? (performance.now() - this.#running) / 1000 : timing.total_s;
		const { first_token_s: first, total_s: total, queue_s: waited } = timing;
		const rate = first === undefined ? steps / made : (usage.completion_tokens - 1) / (total - first);
		return { seconds: made, woke, waited: waited ?? 0, first: first && Math.max(first - woke, 0), rate };
	}
}

export function facts(result) {
	const { order, kind, woke = 0, waited = 0, first, rate } = result;
	const parts = [result.model, t(`facts.${kind}`, { ...result, seconds: amount(result.seconds) })];
	if (rate > 0 && rate < Infinity) parts.push(t(`facts.rate.${kind}`, { rate: amount(rate) }));
	if (first !== undefined) parts.push(t("facts.first", { seconds: amount(first) }));
	if (woke >= 0.1) parts.push(t("facts.woke", { seconds: amount(woke) }));
	if (waited >= 0.1) parts.push(t("facts.waited", { seconds: amount(waited) }));
	if (order.seed !== undefined) parts.push(t("facts.seed", order));
	if (result.finish === "length") parts.push(t("facts.length"));
	if (result.understood?.length) parts.push(t("facts.understood", { words: result.understood.join(t("comma")) }));
	else if (result.understood) parts.push(t("facts.nothing"));
	return parts;
}
