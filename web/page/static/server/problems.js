// Problem documents as sentences; ../template.py says the same.
import { has, t } from "../texts/texts.js";

export function sentence(error) {
	const { title, detail, retry_after: seconds } = error.problem;
	const key = `problem.${error.slug}`;
	const text = t(has(key) ? key : "problem", { title, detail });
	return seconds === undefined ? text : `${text} ${t("retry", { seconds })}`;
}
