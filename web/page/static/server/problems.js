// What has gone wrong, as a sentence; ../template.py says the same.
import { has, t } from "../texts/texts.js";

/** `name`: what a field of the order is called on the page; undefined where it has none. */
export function sentence(error, name = () => undefined) {
	if (!error.problem) return t("problem.unexpected", { detail: error.message });
	const { title, detail, errors = [] } = error.problem;
	if (errors.some(({ code }) => code === "context_length_exceeded")) return t("problem.context");
	const fields = errors.map(({ field, detail }) => `${name(field) ?? field}: ${detail}`).join("; ");
	const key = `problem.${error.slug}`;
	return t(has(key) ? key : "problem", { title, detail: fields || detail });
}
