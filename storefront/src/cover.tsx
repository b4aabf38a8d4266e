/** A cover drawn from an item's id and first category: the same item always looks the same, and nothing is loaded. */
import type { CatalogueItem } from "./api";
import { title } from "./words";

function digest(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash ^= hash >>> 15;
  return Math.imul(hash, 0x2c1b3c6d) >>> 0;
}

/** Hues of a category lie together, so that a genre can be seen across a shelf; an item without one has its own. */
function hues(item: CatalogueItem): [number, number] {
  const base = digest(item.categories[0] ?? item.item_id);
  const own = digest(item.item_id);
  const first = (base % 360) + ((own % 41) - 20);
  return [first, first + 35 + (own % 60)];
}

const SHAPES = [
  (n: number) => (
    <>
      <circle cx={30 + (n % 60)} cy={40 + ((n >> 3) % 50)} r={34 + ((n >> 5) % 18)} />
      <circle cx={85 - ((n >> 2) % 40)} cy={95 + ((n >> 4) % 30)} r={20 + ((n >> 6) % 14)} opacity=".55" />
    </>
  ),
  (n: number) =>
    [0, 1, 2, 3, 4].map((at) => (
      <rect key={at} x={-30} y={18 + at * 26} width={180} height={4 + ((n >> at) % 12)} transform={`rotate(${-28 + (n % 24)} 60 80)`} opacity={0.35 + 0.13 * at} />
    )),
  (n: number) =>
    [0, 1, 2, 3].map((at) => (
      <circle key={at} cx={60 + ((n >> 2) % 50) - 25} cy={62 + ((n >> 4) % 30)} r={14 + at * 17} fill="none" stroke="currentColor" strokeWidth={5 - at} opacity={0.9 - at * 0.18} />
    )),
  (n: number) => (
    <>
      <path d={`M0 ${110 - (n % 30)} Q ${30 + (n % 20)} ${50 + ((n >> 3) % 30)} 60 ${100 - ((n >> 2) % 30)} T 120 ${90 - ((n >> 4) % 30)} V160 H0Z`} />
      <circle cx={26 + ((n >> 5) % 68)} cy={36 + ((n >> 7) % 16)} r={12} opacity=".7" />
    </>
  ),
  (n: number) => (
    <>
      <path d={`M${20 + (n % 20)} 130 L60 ${24 + ((n >> 3) % 20)} L${100 - ((n >> 2) % 20)} 130Z`} />
      <path d={`M${-4 + (n % 16)} 140 L34 ${74 + ((n >> 5) % 20)} L72 140Z`} opacity=".5" />
    </>
  ),
  (n: number) =>
    Array.from({ length: 20 }, (_, at) => (
      <rect key={at} x={10 + (at % 4) * 26} y={12 + Math.floor(at / 4) * 26} width={20} height={20} rx={(n >> at) % 2 ? 10 : 2} opacity={(n >> (at + 3)) % 3 ? 0.75 : 0.2} />
    )),
];

export function Cover({ item }: { item: CatalogueItem }) {
  const [first, second] = hues(item);
  const own = digest(item.item_id) >>> 1;
  const shape = SHAPES[own % SHAPES.length];
  const ink = `hsl(${second} 62% 62%)`;
  return (
    <span className="cover" style={{ background: `linear-gradient(160deg, hsl(${first} 46% 30%), hsl(${first + 18} 52% 17%))` }}>
      <svg viewBox="0 0 120 160" preserveAspectRatio="xMidYMid slice" aria-hidden="true" fill="currentColor" style={{ color: ink }}>
        {shape?.(own)}
      </svg>
      <span className="cover-title">{title(item)}</span>
    </span>
  );
}
