// The form: from what is written to an order and back, and what is wrong with it.
import { always } from "../browser/storage.js";
import { modelOf } from "../server/models.js";
import { t } from "../texts/texts.js";
import { fits } from "./sizes.js";

const element = (id) => document.getElementById(id);
const KEPT = "settings";
const FIELDS = {
	text: { seed: Number, temperature: Number, top_p: Number, max_tokens: Number, stop: String },
	image: { seed: Number, size: String, steps: Number, guidance: Number, n: Number, negative_prompt: String },
};
const ALL = [...new Set([...Object.keys(FIELDS.text), ...Object.keys(FIELDS.image)])];
const SETTINGS = ALL.slice(1); // a seed is of one order
const PREVIEWS = 4;

export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class OrderForm {
	#form = element("order");
	#options = this.#form.querySelector("details");
	#menu;
	#history = [];
	#partner = null;

	constructor(menu) {
		this.#menu = menu;
		element("anew").addEventListener("click", () => {
			this.converse([]);
			element("prompt").focus();
		});
		this.#form.addEventListener("input", ({ target }) => this.#changed(target));
		for (const event of ["language", "models", "model"]) document.addEventListener(event, () => this.#suit());
		this.#options.addEventListener("toggle", () => this.#offer());
		const kept = always.read(KEPT) ?? {};
		for (const name of SETTINGS) this.#field(name).value ||= kept[name] ?? "";
		this.#suit();
	}

	get prompt() {
		return this.#field("prompt").value;
	}

	/** What it says, with a seed that is known afterwards whatever the model is. */
	get order() {
		return { seed: randomSeed(), ...this.written };
	}

	get written() {
		const { kind, model } = this.#menu;
		const order = { prompt: this.prompt, model };
		for (const [name, type] of Object.entries(FIELDS[kind])) {
			const field = this.#field(name);
			const value = field.value.trim();
			if (value && !field.parentElement.hidden) order[name] = type(value);
		}
		if (kind === "image") order.previews = PREVIEWS;
		if (this.#partner === model && this.#history.length) order.history = this.#history;
		return order;
	}

	/** Go on with what was said; with nothing, begin anew. */
	converse(history) {
		this.#history = history;
		this.#partner = this.#menu.model;
		this.#suit();
	}

	/** Write an order into it; kept settings stay. */
	fill(order) {
		if (this.#menu.kindOf(order.model)) this.#menu.choose(order.model);
		for (const name of ["prompt", ...ALL]) this.#field(name).value = order[name] ?? "";
		this.converse(order.history ?? []);
	}

	/** What a field of an order is called here. */
	label = (name) => {
		const field = this.#field(name);
		return name === "prompt" ? t("prompt") : field?.closest?.("label")?.firstElementChild.textContent;
	};

	/** Whether it can be sent; shows the first field that is wrong. */
	check() {
		const wrong = ["prompt", ...Object.keys(FIELDS[this.#menu.kind])]
			.map((name) => this.#field(name))
			.find((field) => !this.#valid(field));
		if (wrong) this.#show(wrong);
		return !wrong;
	}

	/** Show a field that the server refuses. */
	mark({ field: name, detail }) {
		const field = this.#field(name);
		if (!field?.setCustomValidity || field.parentElement.hidden) return;
		field.setCustomValidity(detail);
		this.#show(field);
	}

	#talk() {
		const turns = this.#partner === this.#menu.model ? this.#history.length / 2 : 0;
		element("talk").hidden = !turns;
		element("talk").firstElementChild.textContent = t("talk", { turns });
	}

	#field(name) {
		return this.#form.elements[name];
	}

	#valid(field) {
		if (field.parentElement.hidden) return true;
		field.setCustomValidity("");
		field.setCustomValidity(this.#mistake(field));
		if (field.validity.valid) field.ariaInvalid = null;
		return field.validity.valid;
	}

	/** In words of the page: those of the browser are in its own language. */
	#mistake(field) {
		const { limits } = modelOf(this.#menu.model);
		const { min, max, name } = field;
		if (field.required && !field.value.trim()) return t("mistake.empty");
		if (name === "size" && field.value && !fits(field.value.trim(), limits.size)) return mistakenSize(limits.size);
		if (name === "prompt" && [...field.value].length > limits.prompt_chars) return t("problem.body-too-large");
		if (field.validity.valid) return "";
		return name === "seed" ? t("mistake.seed") : t("mistake.range", { min, max: max || "∞" });
	}

	#show(field) {
		field.ariaInvalid = true;
		field.closest("details")?.setAttribute("open", "");
		field.focus();
		field.reportValidity();
	}

	#changed(field) {
		field.setCustomValidity("");
		field.ariaInvalid = null;
		if (SETTINGS.includes(field.name)) this.#keep();
		if (field.name === "seed") this.#suit();
	}

	#keep() {
		always.set(KEPT, JSON.stringify(Object.fromEntries(SETTINGS.map((name) => [name, this.#field(name).value]))));
	}

	/** Suit the chosen model: its limits, as far as they are known, and the conversation with it. */
	#suit() {
		this.#talk();
		const seed = this.#field("seed").value;
		this.#options.firstElementChild.textContent = t("options") + (seed && ` · ${t("facts.seed", { seed })}`);
		const { limits, defaults, refuses } = modelOf(this.#menu.model);
		for (const name of SETTINGS) {
			const field = this.#field(name);
			field.placeholder = defaults[name] ?? t(name === "stop" || name === "negative_prompt" ? "nothing" : "default");
			field.parentElement.hidden = refuses.includes(name);
		}
		this.#field("n").placeholder = "1";
		for (const name of ["max_tokens", "steps"]) {
			const field = this.#field(name);
			field.dataset.most ??= field.max;
			field.max = limits[name] ?? field.dataset.most;
		}
		this.#offer();
	}

	/** Once the settings are open. */
	async #offer() {
		if (!this.#options.open) return;
		const { presets } = await import("../on_demand/presets.js");
		const { limits, defaults } = modelOf(this.#menu.model);
		element("sizes").replaceChildren(...presets(defaults.size, limits.size).map((value) => new Option(value)));
	}
}

function mistakenSize({ multiple = 1, side = 2048, pixels, only } = {}) {
	if (only) return t("mistake.size.only", { sizes: only.join(t("comma")) });
	return pixels ? t("mistake.size", { multiple, side, pixels: pixels.toLocaleString() }) : t("mistake.size.form");
}
