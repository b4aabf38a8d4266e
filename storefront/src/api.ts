/** The recommendation API as this page uses it. Types follow serving's OpenAPI document; errors have one shape. */

/** Items of a list on this page. */
export const LENGTH = 12;

export type Domain = "movies" | "products" | "books" | "social";

export interface CatalogueItem {
  item_id: string;
  title: string;
  domain: Domain;
  categories: string[];
  published_year?: number | null;
}

export interface RankedItem extends CatalogueItem {
  rank: number;
  score: number;
}

export interface Answer {
  request_id: string;
  user_id: string;
  variant: string;
  model: string;
  model_version: string;
  rung: string;
  items: RankedItem[];
}

export type Preview = Omit<Answer, "request_id">;

export interface Driver {
  item_id: string;
  contribution: number;
}

export interface Explanation {
  request_id: string;
  propensity: number | null;
  rung: string;
  retrieval: { source: string; model: string; model_version: string; kind: string; cut_id: string; as_of: string };
  history: { items: number; session_items: number; used_items: number };
  filtered: { catalogue: number; domain: number; unavailable: number; seen: number; eligible: number };
  items: { rank: number; item_id: string; score: number; drivers: Driver[] | null }[];
}

export interface UserView {
  user_id: string;
  variant: string;
  version: number;
  history_items: number;
  features: Record<string, number>;
  latest_items: CatalogueItem[];
}

export interface OfferedModel {
  model_version: string;
  model: string;
  kind: string;
  role: "champion" | "candidate" | "beside";
}

export interface Overview {
  model: string;
  model_version: string;
  kind: string;
  as_of: string;
  items: number;
  domains: { domain: Domain; items: number; categories: { category: string; items: number }[] }[];
  variants: Record<string, number>;
  models: OfferedModel[];
}

export interface KnownUser {
  user_id: string;
  history_items: number;
  domains: Domain[];
}

export interface ItemsFound {
  total: number;
  items: CatalogueItem[];
}

export interface NewEvent {
  event_id: string;
  user_id: string;
  item_id: string;
  domain: Domain;
  event_type: "click";
  request_id?: string;
}

/** An answer that is no success; `status` 0 means that there was none at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

const ROOT = new URL("../", document.baseURI);
let key = sessionStorage.getItem("api-key") ?? "";

/** Use this key from now on, as long as the tab lives. */
export function useKey(given: string): void {
  key = given.trim();
  sessionStorage.setItem("api-key", key);
}

type Query = Record<string, string | number | undefined>;

async function ask<T>(path: string, query: Query = {}, body?: unknown, signal?: AbortSignal): Promise<T> {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query))
    if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
  const headers: Record<string, string> = key ? { Authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(url, {
      headers,
      cache: "no-store",
      ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The API does not answer. Is the platform up? `make status` tells.");
  }
  const text = await answer.text();
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw new ApiError(answer.status, "unreadable", `The API answered ${answer.status} with no JSON.`);
  }
  if (answer.ok) return content as T;
  const fault = (content as { error?: { code: string; message: string } }).error;
  throw new ApiError(answer.status, fault?.code ?? "unknown", fault?.message ?? `The API answered ${answer.status}.`);
}

const of = (user: string) => `v1/users/${encodeURIComponent(user)}`;

export const api = {
  overview: (signal?: AbortSignal) => ask<Overview>("v1/catalogue", {}, undefined, signal),
  items: (query: Query, signal?: AbortSignal) => ask<ItemsFound>("v1/items", query, undefined, signal),
  users: (domain: Domain, signal?: AbortSignal) =>
    ask<{ users: KnownUser[] }>("v1/users", { domain, k: 12 }, undefined, signal),
  state: (user: string, signal?: AbortSignal) => ask<UserView>(`${of(user)}/state`, {}, undefined, signal),
  list: (user: string, domain: Domain, k: number, signal?: AbortSignal) =>
    ask<Answer>(`${of(user)}/recommendations`, { domain, k }, undefined, signal),
  preview: (user: string, asked: { variant?: string | undefined; model_version?: string | undefined }, domain: Domain, k: number, signal?: AbortSignal) =>
    ask<Preview>(`${of(user)}/preview`, { ...asked, domain, k }, undefined, signal),
  similar: (item: string, domain: Domain, k: number, signal?: AbortSignal) =>
    ask<{ items: RankedItem[] }>(`v1/items/${encodeURIComponent(item)}/similar`, { domain, k }, undefined, signal),
  why: (request: string, signal?: AbortSignal) => ask<Explanation>(`v1/requests/${request}`, {}, undefined, signal),
  send: (event: NewEvent) => ask<{ event_id: string }>("v1/events", {}, event),
};
