// The card of the chosen model: what it takes, what to ask it, and which words it knows.
import { localized, modelOf } from "../server/models.js";
import { t } from "../texts/texts.js";

const element = (id) => document.getElementById(id);

export class About {
	#menu;

	/** `use(prompt, run)`: an example or a word was chosen, and is to be run at once. */
	constructor(menu, use) {
		this.#menu = menu;
		for (const event of ["language", "models", "model"]) document.addEventListener(event, (event) => this.#show(event));
		element("examples").addEventListener("click", ({ target, shiftKey }) => {
			if (target.type === "button") use(target.textContent, shiftKey);
		});
		element("known").addEventListener("click", async () => {
			const { show } = await import("../on_demand/dialogs/words.js");
			show(localized(modelOf(menu.model).vocabulary), use);
		});
		this.#show();
	}

	/** `event`: absent as long as nothing can be known. */
	#show(event) {
		const model = modelOf(this.#menu.model);
		const kind = this.#menu.kind;
		const examples = localized(model.examples) ?? t(`examples.${kind}`).split("|");
		element("prompt").placeholder = examples[0];
		element("examples").replaceChildren(...examples.map(button));
		const count = localized(model.vocabulary)?.length;
		element("known").hidden = !count;
		element("known").textContent = t("words.known", { count });
		element("about").textContent = facts(model, kind).join(" · ");
		const card = element("about").parentElement;
		card.hidden = event && card.textContent.trim() === "";
		this.#menu.row.after(card);
	}
}

export const button = (textContent) => Object.assign(document.createElement("button"), { type: "button", textContent });

function facts({ languages = [], limits, defaults, conversations, license }, kind) {
	const names = new Intl.DisplayNames([document.documentElement.lang], { type: "language" });
	return [
		languages.map((language) => names.of(language)).join(t("comma")),
		kind === "image" && defaults.size?.replace("x", " × "),
		kind === "image" && defaults.steps && t("about.steps", { count: defaults.steps }),
		kind === "text" && limits.context_tokens && t("about.context", { count: limits.context_tokens.toLocaleString() }),
		conversations && t("about.conversations"),
		license,
	].filter(Boolean);
}
