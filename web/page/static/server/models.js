// What is known of the models: what they are good for, their limits and defaults. What is not known is absent.
import { described } from "./api.js";

let known = null;

/** Ask the server; a "models" event says that there is more. */
export async function learn() {
	const heard = await described().catch(() => known ?? []); // the form takes everything then
	if (JSON.stringify(heard) === JSON.stringify(known)) return;
	known = heard;
	document.dispatchEvent(new Event("models"));
}

export function modelOf(name) {
	const { limits = {}, defaults = {}, refuses = [], ...rest } = known?.find((model) => model.name === name) ?? {};
	return { ...rest, limits, defaults, refuses };
}

/** Of texts by their languages, the one for the reader. */
export function localized(texts = {}) {
	return texts[document.documentElement.dataset.lang] ?? texts.en ?? Object.values(texts)[0];
}
