// Sizes of pictures to choose from.
import { fits, sides } from "../order/sizes.js";

const FORMS = [[1, 1], [4, 3], [3, 4], [16, 9], [9, 16]];

/** Some that the model makes, of about as many pixels as the usual one. */
export function presets(usual, limits) {
	if (limits?.only) return limits.only;
	if (!usual || !limits) return [];
	const [width, height] = sides(usual);
	const made = FORMS.map(([wide, high]) => {
		const unit = Math.sqrt((width * height) / (wide * high));
		return [wide, high].map((part) => Math.round((part * unit) / limits.multiple) * limits.multiple).join("x");
	});
	return [...new Set([usual, ...made])].filter((size) => fits(size, limits));
}
