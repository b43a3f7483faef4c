// What is shown: the generation that runs, or a result.
import { blobOf } from "../browser/blob.js";
import { sides } from "../order/sizes.js";
import { modelOf } from "../server/models.js";
import { sentence } from "../server/problems.js";
import { amount, has, t } from "../texts/texts.js";
import { Stopwatch, facts } from "./facts.js";
import { Plate, isSmall } from "./plate.js";
import { Progress } from "./progress.js";

const element = (id) => document.getElementById(id);
const NOISE = 0.25; // a preview of the first quarter of the steps shows nothing yet

export class Stage {
	#root = element("stage");
	#progress = new Progress();
	#plate = new Plate();
	#code = null;
	#watch = new Stopwatch();
	#label;
	#problem = null;
	#retryAt = 0;
	#retry = 0;
	#steps = 0;
	kind;
	order = null;
	result = null;

	/** `label`: what a field of an order is called. */
	constructor(label) {
		this.#label = label;
		element("code").addEventListener("toggle", () => this.#openCode(), { once: true });
		document.addEventListener("language", () => {
			this.#progress.say();
			this.#say();
		});
	}

	/** Prepare for a new order. */
	begin(order, kind) {
		const held = this.#root.matches(":focus-within");
		this.#clear();
		this.#of(order, kind);
		this.#root.dataset.busy = "";
		element("stop").hidden = false;
		if (held) element("stop").focus({ preventScroll: true });
		this.#progress.at(null, () => t("state.sending"));
	}

	/** Show a stored result. */
	open(result) {
		this.#clear();
		this.#of(result.order, result.kind);
		element("idle").hidden = true;
		this.done(result);
	}

	/** Seconds of the result that has just come. */
	times = (document, seen) => this.#watch.times(document, seen);

	// The events of a job, by their names

	status({ state, phase = "", seconds = 0, expected_seconds: expected, position }) {
		const ahead = () => (position ? t("state.ahead", { count: position }) : "");
		if (state === "waking" || state === "asleep") {
			const [step, done = ""] = phase.split(",");
			this.#watch.woken(seconds);
			this.#progress.at("waking", () => {
				const named = state === "asleep" ? "" : (has(`phase.${step}`) ? t(`phase.${step}`) : step) + done;
				const usual = expected && t("state.usually", { seconds: amount(expected) });
				return [t(`state.${state}`), named, usual, ahead()].filter(Boolean).join(" · ");
			});
			this.#progress.wait(seconds, expected, step);
		} else if (state === "queued") {
			this.#plate.clear(); // it may be begun anew
			this.#watch.queued();
			this.#progress.at("queued", () => (position === 0 ? t("state.next") : ahead() || t("state.queued")));
			this.#progress.hideBar();
		} else if (state === "pending") {
			this.#progress.at(null, () => t("state.pending"));
			this.#progress.hideBar();
		} else if (state === "running") this.#run();
	}

	reasoning({ text }) {
		this.#run();
		this.#plate.think(text);
	}

	token({ text }) {
		this.#run();
		this.#plate.write(text);
	}

	progress({ step, of }) {
		this.#run();
		this.#steps = of;
		this.#progress.draw(step / of, t("state.step", { step, of }));
	}

	preview({ image, step, data, media_type: type }) {
		if (step !== null && step <= NOISE * this.#steps) return;
		this.#plate.preview(image, blobOf(data, type), this.order.prompt);
	}

	/** Whether its connection is. */
	lost(lost) {
		if (this.#progress.lost === lost) return;
		this.#progress.lost = lost;
		this.#progress.say();
	}

	// Its end

	stop() {
		this.#progress.stopping = true;
		this.#progress.say();
	}

	stopped() {
		this.#broken("state.stopped");
	}

	fail(error) {
		this.#problem = error;
		this.#retryAt = Date.now() + 1000 * (error.problem?.retry_after ?? 0);
		this.#broken("state.failed");
	}

	done(result) {
		this.result = result;
		this.#end();
		this.#plate.serve(result);
		element("actions").classList.remove("empty");
		element("upright").hidden = !element("text").classList.contains("verse");
		element("actual").hidden = result.kind !== "image";
		element("share").hidden = !!result.order.history;
		element("reply").hidden = !modelOf(result.order.model).conversations;
		this.#progress.at("done", () => t("state.done"));
		this.#say();
	}

	// Parts

	#of(order, kind) {
		this.order = order;
		this.kind = kind;
		this.#plate.begin(order.history && [...order.history, { role: "user", content: order.prompt }]);
		const size = order.size ?? modelOf(order.model).defaults.size;
		this.#plate.small = Boolean(size) && isSmall(...sides(size));
		element("asked").textContent = order.prompt;
		element("asked").hidden = Boolean(order.history);
		element("code").classList.remove("empty");
		this.#code?.show(order, kind);
	}

	async #openCode() {
		const { Code } = await import("../on_demand/code/code.js");
		this.#code = new Code();
		this.#code.show(this.order, this.kind);
	}

	#clear() {
		this.#end();
		this.#watch = new Stopwatch();
		this.#problem = this.result = null;
		this.#steps = this.#retryAt = 0;
		clearTimeout(this.#retry);
		element("retry").hidden = true;
		element("actions").classList.add("empty");
		element("idle").lastElementChild.className = "empty";
		this.#root.querySelector(".answer").replaceChildren(); // of the form, where scripts have come late
		this.#say();
	}

	#end() {
		this.#progress.lost = this.#progress.stopping = false;
		delete this.#root.dataset.busy;
		if (this.#root.querySelector(".told :focus")) element("serve").focus({ preventScroll: true });
		element("stop").hidden = true;
		this.#progress.hideBar();
	}

	#broken(sentence) {
		this.#end();
		this.#progress.broken(() => t(sentence));
		element("retry").hidden = false;
		this.#countDown();
		this.#say();
	}

	#run() {
		this.#watch.ran();
		if (this.#progress.course === "running") return;
		this.#progress.at("running", () => t(`state.running.${this.kind}`));
		this.#progress.hideBar();
		if (this.kind === "image") this.#progress.draw(0);
	}

	#say() {
		element("problem").hidden = this.#problem === null;
		element("problem").textContent = this.#problem ? sentence(this.#problem, this.#label) : "";
		element("facts").replaceChildren(
			...(this.result ? facts(this.result) : []).map((textContent) =>
				Object.assign(document.createElement("li"), { textContent }),
			),
		);
	}

	/** Until it is worth trying again. */
	#countDown() {
		const left = Math.ceil((this.#retryAt - Date.now()) / 1000);
		element("retry").disabled = left > 0;
		element("retry").textContent = left > 0 ? t("retry.in", { seconds: left }) : t("retry");
		if (left > 0) this.#retry = setTimeout(() => this.#countDown(), 250);
	}
}
