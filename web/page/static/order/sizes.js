// Which sizes of pictures a model makes.
export const sides = (size) => size.split("x").map(Number);

export function fits(size, { multiple = 1, side = 2048, pixels = Infinity, only } = {}) {
	if (!/^[0-9]{1,5}x[0-9]{1,5}$/.test(size)) return false;
	const [width, height] = sides(size);
	if (only) return only.includes(`${width}x${height}`);
	const whole = width > 0 && height > 0 && width % multiple === 0 && height % multiple === 0;
	return whole && Math.max(width, height) <= side && width * height <= pixels;
}
