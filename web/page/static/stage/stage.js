// What is shown: the generation that runs, or a result.
import { sentence } from "../server/problems.js";
import { curl, fetchCall } from "./snippets.js";
import { amount, has, t } from "../texts/texts.js";
import { Writer } from "./writer.js";

const element = (id) => document.getElementById(id);
const COURSES = ["waking", "queued", "running", "done"];
const TICK = 250;
const NEARLY = 0.95; // a bar that waits at its end has promised too much

export class Stage {
	#root = element("stage");
	#bar = element("bar");
	#pictures = element("pictures");
	#writer = new Writer(element("text"));
	#urls = new Map();
	#timer = 0;
	#course = null;
	#status = () => "";
	#facts = () => "";
	#problem = null;
	#lost = false;
	#stopping = false;
	#kind;
	#order = null;
	result = null;

	constructor() {
		document.addEventListener("language", () => this.#say());
	}

	/** Prepare for a new order. */
	begin(order, kind) {
		this.#clear();
		this.#of(order, kind);
		this.#root.dataset.busy = "";
		element("stop").hidden = false;
		this.#at(null, () => t("state.sending"));
	}

	/** Show a stored result. */
	open(result) {
		this.#clear();
		this.#of(result.order, result.kind);
		this.done(result);
	}

	// The events of a job, by their names

	status({ state, phase = "", seconds = 0, expected_seconds: expected, position = 0 }) {
		if (state === "waking") {
			this.#at("waking", () => {
				const [step, done = ""] = phase.split(",");
				const named = (has(`phase.${step}`) ? t(`phase.${step}`) : step) + done;
				const whole = expected && t("state.waking.of", { seconds: amount(expected) });
				return [t("state.waking"), named, whole].filter(Boolean).join(" · ");
			});
			this.#wait(seconds, expected);
		} else if (state === "asleep") {
			this.#at("waking", () => t("state.asleep"));
			this.#wait(0, expected);
		} else if (state === "queued") {
			this.#discard(); // it may be begun anew
			const key = ["state.queued", "state.queued.1"][position] ?? "state.queued.n";
			this.#at("queued", () => t(key, { count: position }));
			this.#hideBar();
		} else if (state === "pending") {
			this.#at(null, () => t("state.pending"));
			this.#hideBar();
		} else if (state === "running") this.#run();
	}

	reasoning({ text }) {
		this.#run();
		element("idle").hidden = true;
		element("reasoning").hidden = false;
		element("thoughts").append(text);
	}

	token({ text }) {
		this.#run();
		element("idle").hidden = true;
		element("text").hidden = false;
		this.#writer.append(text);
	}

	progress({ step, of }) {
		this.#run();
		this.#draw(step / of, t("state.step", { step, of }));
	}

	preview({ image, data, media_type: type }) {
		this.#picture(image, blobOf(data, type)).classList.add("rough");
	}

	// Its connection

	lost() {
		this.#lost = true;
		this.#say();
	}

	found() {
		if (!this.#lost) return;
		this.#lost = false;
		this.#say();
	}

	// Its end

	stop() {
		this.#stopping = true;
		this.#say();
	}

	stopped() {
		this.#end();
		this.#at(this.#course, () => t("state.stopped"));
	}

	fail(error) {
		this.#end();
		this.#problem = error;
		this.#at(this.#course, () => t("state.failed"));
	}

	done(result) {
		this.result = result;
		this.#end();
		element("idle").hidden = true;
		if (result.kind === "text") {
			element("text").hidden = false;
			this.#writer.settle(result.text);
			element("reasoning").hidden = !result.reasoning;
			element("thoughts").textContent = result.reasoning ?? "";
		} else {
			result.pictures.forEach(({ blob, width, height }, index) => {
				const picture = this.#picture(index, blob);
				Object.assign(picture, { width, height, alt: t("picture", { index: index + 1, prompt: result.order.prompt }) });
				picture.classList.remove("rough");
			});
		}
		this.#facts = () => facts(result);
		element("actions").hidden = false;
		this.#at("done", () => t("state.done"));
	}

	// Parts

	#of(order, kind) {
		this.#order = order;
		this.#kind = kind;
		element("asked").textContent = order.prompt;
		element("asked").hidden = false;
		element("curl").textContent = curl(order, kind);
		element("fetch").textContent = fetchCall(order, kind);
		element("code").hidden = false;
	}

	#clear() {
		this.#end();
		this.#discard();
		this.#problem = this.result = null;
		this.#facts = () => "";
		element("actions").hidden = true;
		element("idle").lastElementChild.hidden = true;
		this.#root.querySelector(".answer").replaceChildren(); // of the form, where scripts have come late
	}

	#discard() {
		this.#writer.clear();
		element("text").hidden = element("reasoning").hidden = this.#pictures.hidden = true;
		element("thoughts").replaceChildren();
		element("idle").hidden = false;
		this.#pictures.replaceChildren();
		for (const url of this.#urls.values()) URL.revokeObjectURL(url);
		this.#urls.clear();
	}

	#end() {
		this.#lost = this.#stopping = false;
		delete this.#root.dataset.busy;
		if (document.activeElement === element("stop")) element("serve").focus({ preventScroll: true });
		element("stop").hidden = true;
		this.#hideBar();
	}

	#run() {
		if (this.#course === "running") return;
		this.#at("running", () => t(`state.running.${this.#kind}`));
		this.#hideBar();
		if (this.#kind === "image") this.#draw(0);
	}

	#picture(index, blob) {
		element("idle").hidden = true;
		this.#pictures.hidden = false;
		while (this.#pictures.children.length <= index) this.#pictures.append(new Image());
		this.#pictures.classList.toggle("single", this.#pictures.children.length === 1);
		const picture = this.#pictures.children[index];
		const before = this.#urls.get(index);
		const url = URL.createObjectURL(blob);
		this.#urls.set(index, url);
		picture.alt = this.#order.prompt;
		picture.src = url;
		if (before) picture.decode().catch(() => {}).then(() => URL.revokeObjectURL(before)); // shown until the next one is
		return picture;
	}

	#at(course, status) {
		this.#course = course;
		this.#status = status;
		this.#root.dataset.state = course ?? "idle";
		const now = COURSES.indexOf(course);
		[...this.#root.querySelectorAll(".courses li")].forEach((item, index) => {
			item.classList.toggle("past", index < now);
			item.classList.toggle("now", index === now);
		});
		this.#say();
	}

	#say() {
		const status = this.#lost ? t("state.lost") : this.#stopping ? t("state.stopping") : this.#status();
		const told = element("status");
		if (told.textContent !== status) told.textContent = status; // else it would be read aloud again
		this.#root.toggleAttribute("data-lost", this.#lost);
		element("problem").hidden = this.#problem === null;
		element("problem").textContent = this.#problem === null ? "" : sentence(this.#problem);
		element("facts").textContent = this.#facts();
		element("facts").hidden = element("facts").textContent === "";
	}

	/** A bar that grows over the expected time, or only moves where none is known. */
	#wait(seconds, expected) {
		const begun = performance.now() - seconds * 1000;
		const grow = () => {
			const passed = (performance.now() - begun) / 1000;
			this.#draw(expected ? Math.min(passed / expected, NEARLY) : null, t("state.seconds", { seconds: Math.floor(passed) }));
		};
		clearInterval(this.#timer);
		this.#timer = setInterval(grow, TICK);
		grow();
	}

	#draw(part, text = "") {
		this.#bar.hidden = false;
		if (part === null) this.#bar.removeAttribute("aria-valuenow");
		else this.#bar.setAttribute("aria-valuenow", Math.round(part * 100));
		this.#bar.setAttribute("aria-valuetext", text);
		this.#bar.style.setProperty("--done", part ?? 0);
		element("measure").textContent = text;
	}

	#hideBar() {
		clearInterval(this.#timer);
		this.#bar.hidden = true;
		element("measure").textContent = "";
	}
}

/** A file from its base64. */
export function blobOf(data, type) {
	return new Blob([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], { type });
}

function facts(result) {
	const parts = [t(`facts.${result.kind}`, { ...result, seed: result.order.seed, seconds: amount(result.seconds) })];
	if (result.finish === "length") parts.push(t("facts.length"));
	if (result.understood?.length) parts.push(t("facts.understood", { words: result.understood.join(" ") }));
	return parts.join(" · ");
}
