// The form: from what is written to an order and back, and what is wrong with it.
import { always } from "../browser/storage.js";
import { modelOf } from "../server/models.js";
import { t } from "../texts/texts.js";
import { fits, presets } from "./sizes.js";

const element = (id) => document.getElementById(id);
const KEPT = "settings";
const FIELDS = {
	text: { temperature: Number, top_p: Number, max_tokens: Number, stop: String },
	image: { size: String, steps: Number, guidance: Number, n: Number, negative_prompt: String },
};
const SETTINGS = [...Object.keys(FIELDS.text), ...Object.keys(FIELDS.image)];
const PREVIEWS = 4;

export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class OrderForm {
	#form = element("order");
	#menu;
	#history = [];
	#partner = null;

	constructor(menu) {
		this.#menu = menu;
		element("anew").addEventListener("click", () => {
			this.converse([]);
			element("prompt").focus();
		});
		document.addEventListener("language", () => this.#talk());
		document.addEventListener("model", () => this.#menu.model === this.#partner || this.converse([]));
		this.#form.noValidate = true; // browsers stumble over fields that are folded away, or another kind's
		this.#form.addEventListener("input", ({ target }) => this.#changed(target));
		for (const event of ["language", "models", "model"]) document.addEventListener(event, () => this.#limit());
		const kept = always.read(KEPT) ?? {};
		for (const name of SETTINGS) this.#field(name).value ||= kept[name] ?? "";
		this.#limit();
	}

	get prompt() {
		return this.#field("prompt").value;
	}

	/** What it says. The seed is chosen here, so that it is known afterwards whatever the model is. */
	get order() {
		const { kind, model } = this.#menu;
		const order = { prompt: this.prompt, model };
		const typed = this.#field("seed").value.trim();
		order.seed = typed ? Number(typed) : randomSeed();
		for (const [name, type] of Object.entries(FIELDS[kind])) {
			const field = this.#field(name);
			const value = field.value.trim();
			if (value && !field.parentElement.hidden) order[name] = type(value);
		}
		if (kind === "image") order.previews = PREVIEWS;
		if (this.#history.length) order.history = this.#history;
		return order;
	}

	/** Go on with what was said; with nothing, begin anew. */
	converse(history) {
		this.#history = history;
		this.#partner = this.#menu.model;
		this.#talk();
	}

	/** Write an order into it. */
	fill(order) {
		if (this.#menu.kindOf(order.model)) this.#menu.choose(order.model);
		this.converse(order.history ?? []);
		for (const name of ["prompt", "seed", ...SETTINGS]) this.#field(name).value = order[name] ?? "";
		this.#keep();
		this.#limit();
	}

	/** What a field of an order is called here. */
	label = (name) => {
		const field = this.#field(name);
		return name === "prompt" ? t("prompt") : field?.closest?.("label")?.firstElementChild.textContent;
	};

	/** Whether it can be sent; shows the first field that is wrong. */
	check() {
		const wrong = ["prompt", "seed", ...Object.keys(FIELDS[this.#menu.kind])]
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
		const turns = this.#history.length / 2;
		element("talk").hidden = !turns;
		element("talk").firstElementChild.textContent = t(turns === 1 ? "talk.1" : "talk", { turns });
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
		if (field.validity.valueMissing) return t("mistake.empty");
		if (name === "size" && field.value && !fits(field.value.trim(), limits.size)) return mistakenSize(limits.size);
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
	}

	#keep() {
		always.set(KEPT, JSON.stringify(Object.fromEntries(SETTINGS.map((name) => [name, this.#field(name).value]))));
	}

	/** Within the limits of the chosen model, as far as they are known. */
	#limit() {
		const { limits, defaults, refuses } = modelOf(this.#menu.model);
		for (const name of SETTINGS) {
			const field = this.#field(name);
			field.placeholder = defaults[name] ?? t(name === "stop" || name === "negative_prompt" ? "nothing" : "default");
			field.parentElement.hidden = refuses.includes(name);
		}
		this.#field("n").placeholder = "1";
		for (const name of ["max_tokens", "steps"]) if (limits[name]) this.#field(name).max = limits[name];
		const sizes = presets(defaults.size, limits.size).map((value) => new Option(value));
		element("sizes").replaceChildren(...sizes);
	}
}

function mistakenSize({ multiple = 1, side = 2048, pixels, only } = {}) {
	if (only) return t("mistake.size.only", { sizes: only.join(t("comma")) });
	return pixels ? t("mistake.size", { multiple, side, pixels: pixels.toLocaleString() }) : t("mistake.size.form");
}
