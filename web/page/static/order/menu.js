// The models, whether they are awake, and waking the chosen one while its order is still being written.
import { statuses, warm } from "../server/api.js";
import { localized, modelOf } from "../server/models.js";
import { has, t } from "../texts/texts.js";

const FRESH = 45_000; // a model that was woken this long ago is awake still
const LOOK = 1_000;
const LOOKS = 600;
const AGAIN = 60_000;
const PRESENT = 300_000; // who has done nothing for so long may have left: asking keeps the server awake

export class Menu {
	#form = document.getElementById("order");
	#warmed = new Map();
	#following = false;
	#seen = Date.now();

	constructor() {
		this.#form.addEventListener("change", ({ target }) => target.name === "model" && this.#chosen());
		for (const event of ["language", "models"]) document.addEventListener(event, () => this.#describe());
		for (const event of ["pointerdown", "keydown"]) document.addEventListener(event, () => (this.#seen = Date.now()));
		document.addEventListener("visibilitychange", () => document.hidden || this.look());
		for (const event of ["focus", "online"]) addEventListener(event, () => this.look());
		setInterval(() => !document.hidden && Date.now() - this.#seen < PRESENT && this.look(), AGAIN);
		this.#form.dataset.kind = this.kind;
		this.look();
	}

	get model() {
		return this.#form.querySelector("[name=model]:checked").value;
	}

	get kind() {
		return this.kindOf(this.model);
	}

	/** That of the chosen model. */
	get row() {
		return this.#form.querySelector("[name=model]:checked").parentElement;
	}

	kindOf(model) {
		return this.#inputs.find((input) => input.value === model)?.dataset.kind;
	}

	choose(model) {
		const input = this.#inputs.find((each) => each.value === model);
		if (input) input.checked = true;
		this.#chosen();
	}

	/** The user is about to use it. */
	async warm() {
		const { model } = this;
		if (Date.now() - (this.#warmed.get(model) ?? 0) < FRESH) return;
		this.#warmed.set(model, Date.now());
		try {
			const status = await warm(model);
			this.tell(model, status.state);
			if (status.state !== "ready") this.#follow();
		} catch {
			this.#warmed.delete(model); // the order itself will say what is wrong
		}
	}

	/** Other states say nothing of a model, or are of a later version. */
	tell(model, state) {
		if (!has(`awake.${state}`)) return;
		const awake = [...document.querySelectorAll(".awake")].find((each) => each.dataset.model === model);
		if (!awake) return;
		awake.dataset.state = state;
		awake.dataset.t = `awake.${state}`;
		awake.textContent = t(awake.dataset.t);
	}

	get #inputs() {
		return [...this.#form.querySelectorAll("[name=model]")];
	}

	#chosen() {
		this.#form.dataset.kind = this.kind;
		document.dispatchEvent(new Event("model"));
	}

	#describe() {
		for (const input of this.#inputs) {
			const summary = input.parentElement.querySelector(".summary");
			summary.textContent = localized(modelOf(input.value).summary) ?? summary.textContent;
		}
	}

	/** While a model wakes up, and no longer. */
	async #follow() {
		if (this.#following) return;
		this.#following = true;
		for (let looks = 0; looks < LOOKS; looks += 1) {
			await new Promise((resolve) => setTimeout(resolve, LOOK));
			if (!document.hidden && !(await this.look())) break;
		}
		this.#following = false;
	}

	/** Whether one is waking, or may be. Of a server that does not answer nothing is known any more. */
	async look() {
		const models = await statuses().catch(() => this.#inputs.map(({ value }) => ({ name: value, state: "unknown" })));
		for (const { name, state } of models) this.tell(name, state);
		return models.some(({ state }) => state === "waking" || state === "pending");
	}
}
