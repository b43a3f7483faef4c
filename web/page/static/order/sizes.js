// Which sizes of pictures a model makes.
const FORMS = [[1, 1], [4, 3], [3, 4], [16, 9], [9, 16]];

export const sides = (size) => size.split("x").map(Number);

export function fits(size, { multiple = 1, side = 2048, pixels = Infinity, only } = {}) {
	if (!/^[0-9]{1,5}x[0-9]{1,5}$/.test(size)) return false;
	const [width, height] = sides(size);
	if (only) return only.includes(`${width}x${height}`);
	const whole = width > 0 && height > 0 && width % multiple === 0 && height % multiple === 0;
	return whole && Math.max(width, height) <= side && width * height <= pixels;
}

/** Some to choose from, of about as many pixels as the usual one. */
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
