// What is known of the models: what they are good for, their limits and defaults. What is not known is absent.
import { described } from "./api.js";

let known = new Map();

/** Ask the server; a "models" event says that there is more. */
export async function learn() {
	try {
		const heard = (await described()).map((model) => [model.name, model]);
		if (JSON.stringify(heard) === JSON.stringify([...known])) return;
		known = new Map(heard);
		document.dispatchEvent(new Event("models"));
	} catch {} // the form takes everything then
}

export function modelOf(name) {
	const { limits = {}, defaults = {}, refuses = [], ...rest } = known.get(name) ?? {};
	return { ...rest, limits, defaults, refuses };
}

/** Of texts by their languages, the one for the reader. */
export function localized(texts = {}) {
	return texts[document.documentElement.dataset.lang] ?? texts.en ?? Object.values(texts)[0];
}
