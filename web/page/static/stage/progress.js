// How far an order is: its courses, one sentence, and a bar.
import { t } from "../texts/texts.js";

const element = (id) => document.getElementById(id);
const COURSES = ["waking", "queued", "running", "done"];
const TICK = 250;
const NEARLY = 0.95; // a bar that waits at its end has promised too much

export class Progress {
	#root = element("stage");
	#bar = element("bar");
	#timer = 0;
	#sentence = () => "";
	#phase = null;
	#done = 0;
	course = null;
	lost = false;
	stopping = false;

	at(course, sentence) {
		this.course = course;
		this.#sentence = sentence;
		this.#root.dataset.state = course ?? "idle";
		const now = COURSES.indexOf(course);
		[...this.#root.querySelectorAll(".courses li")].forEach((item, index) => {
			item.className = index < now ? "past" : index === now ? "now" : "";
		});
		this.say();
	}

	/** It has ended where it is. */
	broken(sentence) {
		this.at(this.course, sentence);
		this.#root.querySelector(".courses .now")?.classList.add("broken");
	}

	say() {
		const trouble = [this.stopping && t("state.stopping"), this.lost && t("state.lost")].filter(Boolean).join(" ");
		const sentence = trouble || this.#sentence();
		const told = element("status");
		if (told.textContent !== sentence) told.textContent = sentence; // else it would be read aloud again
		this.#root.toggleAttribute("data-lost", this.lost);
	}

	/** A bar that grows over the expected time, or only moves where none is known; with a tick where a phase has ended. */
	wait(seconds, expected, phase = null) {
		const begun = performance.now() - seconds * 1000;
		const grow = () => {
			const passed = (performance.now() - begun) / 1000;
			this.draw(expected ? Math.min(passed / expected, NEARLY) : null, t("state.seconds", { seconds: Math.floor(passed) }));
		};
		clearInterval(this.#timer);
		this.#timer = setInterval(grow, TICK);
		if (this.#phase && phase !== this.#phase && expected) this.#tick();
		this.#phase = phase;
		grow();
	}

	draw(part, text = "") {
		this.#bar.hidden = false;
		this.#bar.ariaValueNow = part === null ? null : Math.round(part * 100);
		this.#bar.ariaValueText = text;
		this.#bar.style.setProperty("--done", part ?? 0);
		this.#done = part ?? 0;
		element("measure").textContent = text;
	}

	hideBar() {
		clearInterval(this.#timer);
		this.#bar.hidden = true;
		this.#bar.querySelectorAll("b").forEach((tick) => tick.remove());
		this.#phase = null;
		element("measure").textContent = "";
	}

	#tick() {
		const tick = this.#bar.appendChild(document.createElement("b"));
		tick.style.setProperty("--at", this.#done);
	}
}
