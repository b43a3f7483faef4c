// The models, whether they are awake, and waking the chosen one while its order is still being written.
import { statuses, warm } from "../server/api.js";
import { has, t } from "../texts/texts.js";

const FRESH = 45_000; // a model that was woken this long ago is awake still
const LOOK = 1_000;
const LOOKS = 600;

export class Menu {
	#form = document.getElementById("order");
	#warmed = new Map();
	#looking = false;

	constructor() {
		this.#form.addEventListener("change", ({ target }) => target.name === "model" && this.#chosen());
		document.addEventListener("language", () => this.#chosen());
		this.#chosen();
		this.#look();
	}

	get model() {
		return this.#form.querySelector("[name=model]:checked").value;
	}

	get kind() {
		return this.kindOf(this.model);
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

	/** What is known of it so far. Other states say nothing of a model, or are of a later version. */
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
		const { kind, model } = this;
		this.#form.dataset.kind = kind;
		const examples = t(`examples.${has(`examples.${model}`) ? model : kind}`).split("|");
		document.getElementById("prompt").placeholder = examples[0];
		const buttons = examples.map((textContent) =>
			Object.assign(document.createElement("button"), { type: "button", textContent }),
		);
		document.getElementById("examples").replaceChildren(...buttons);
	}

	/** Asking keeps the server awake, so it is done while a model wakes up, and no longer. */
	async #follow() {
		if (this.#looking) return;
		this.#looking = true;
		for (let looks = 0; looks < LOOKS; looks += 1) {
			await new Promise((resolve) => setTimeout(resolve, LOOK));
			if (!document.hidden && !(await this.#look())) break;
		}
		this.#looking = false;
	}

	/** Whether one is waking, or may be. */
	async #look() {
		const models = await statuses().catch(() => []);
		for (const { name, state } of models) this.tell(name, state);
		return models.some(({ state }) => state === "waking" || state === "pending");
	}
}
