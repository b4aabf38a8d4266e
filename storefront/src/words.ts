/** Words for people: domains, rungs, titles. */
import type { CatalogueItem, Domain } from "./api";

export const DOMAIN_NAMES: Record<Domain, string> = {
  movies: "Films",
  books: "Books",
  products: "Products",
  social: "Social",
};

const VERBS: Record<Domain, string> = { movies: "watched", books: "read", products: "bought", social: "followed" };

export const because = (item: CatalogueItem) => `Because you ${VERBS[item.domain]} ${title(item)}`;

const ARTICLE = /^(.*), (The|A|An|Les|La|Le|Il|Lo|Das|Der|Die|El|Los|Las|Un|Une)(?= *(?:\(|$))/;
const YEAR = /\s*\((\d{4})\)\s*$/;

/** A title without its year, its article where people say it: `Matrix, The (1999)` → `The Matrix`. */
export function title(item: { title: string }): string {
  const bare = item.title.replace(YEAR, "");
  const found = ARTICLE.exec(bare);
  return found ? `${found[2]} ${found[1]}${bare.slice(found[0].length)}` : bare;
}

export function year(item: CatalogueItem): string {
  return String(item.published_year ?? YEAR.exec(item.title)?.[1] ?? "");
}

export function rung(name: string, domain: Domain, historyItems: number): string {
  switch (name) {
    case "personalised":
      return `From your ${historyItems === 1 ? "one interaction" : `${historyItems.toLocaleString("en")} interactions`}`;
    case "session":
      return "From what you just looked at";
    case "segment_popular":
      return `Popular in ${DOMAIN_NAMES[domain]}: nothing is known of you yet, or your variant asks for it`;
    default:
      return "Popular everywhere";
  }
}

export const ms = (value: number | undefined) =>
  value === undefined ? "" : value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;

const FEATURES: Record<string, string> = {
  user_interactions_total: "interactions",
  user_interactions_30d: "in 30 days",
  user_distinct_items: "different items",
  user_mean_rating: "mean rating",
};
export const feature = (name: string) => FEATURES[name] ?? name.replaceAll("_", " ");
export const amount = (value: number | undefined) =>
  value === undefined ? "none" : Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(2);
