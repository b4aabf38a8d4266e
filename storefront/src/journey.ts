/** One click on its way: to the API, into Kafka, through the stream consumer into the user's state, back as a new list.
 *
 * All instants are this browser's own (`performance.now`), in milliseconds since the click. The state is asked for again
 * and again, so its instant is late by one look at most; `looks` tells how many there were.
 */
import { type Answer, api, ApiError, type CatalogueItem, type Domain, type NewEvent, type UserView } from "./api";
import { type Change, compared } from "./changes";

export type Stage = "log" | "state" | "list";

export interface Journey {
  id: string;
  item: CatalogueItem;
  marks: Partial<Record<Stage, number>>;
  looks: number;
  before: UserView;
  after?: UserView;
  change?: Change;
  fault?: string;
}

export const PATIENCE_MS = 10_000;
const FIRST_PAUSE_MS = 8;
const LONGEST_PAUSE_MS = 250;

export interface Clicked {
  user: string;
  domain: Domain;
  item: CatalogueItem;
  shown: Answer | undefined;
  /** Whether that answer showed the item: only then does its request id belong to the event. */
  isRecommended: boolean;
  length: number;
  /** Of an event that was sent before and perhaps arrived: with the same id it counts once. */
  eventId?: string | undefined;
}

/** Send the click and follow it; `tell` is called with each new state of the journey. `known` is the user's state as it
 * was last seen; an event is told from earlier ones by the version that comes after it.
 *
 * Returns the list that the click led to, or undefined where it did not arrive within `PATIENCE_MS`; the journey's `fault`
 * then says why.
 */
export async function travel(clicked: Clicked, known: UserView, tell: (journey: Journey) => void): Promise<Answer | undefined> {
  const { user, domain, item, shown } = clicked;
  let journey: Journey = {
    id: clicked.eventId ?? crypto.randomUUID(),
    item,
    marks: {},
    looks: 0,
    before: (await patiently(api.state(user)).catch(() => undefined)) ?? known,
  };
  const note = (more: Partial<Journey>) => tell((journey = { ...journey, ...more }));
  const reach = (stage: Stage, more: Partial<Journey> = {}) =>
    note({ ...more, marks: { ...journey.marks, [stage]: performance.now() - started } });

  const event: NewEvent = { event_id: journey.id, user_id: user, item_id: item.item_id, domain, event_type: "click" };
  if (clicked.isRecommended && shown) event.request_id = shown.request_id;
  const started = performance.now();
  note({});
  try {
    await api.send(event);
    reach("log");
    const after = await arrival(user, journey.before.version, started, () => note({ looks: journey.looks + 1 }));
    if (after === undefined) {
      note({ fault: `After ${PATIENCE_MS / 1000} s it has not arrived. Is the stream consumer up? It keeps its place: the event is not lost.` });
      return undefined;
    }
    reach("state", { after });
    const answer = await api.list(user, domain, clicked.length);
    reach("list", { change: compared(shown?.items ?? [], answer.items) });
    return answer;
  } catch (error) {
    note({ fault: error instanceof ApiError ? error.message : String(error) });
    return undefined;
  }
}

async function arrival(user: string, version: number, started: number, look: () => void): Promise<UserView | undefined> {
  for (let pause = FIRST_PAUSE_MS; performance.now() - started < PATIENCE_MS; pause = Math.min(pause * 1.3, LONGEST_PAUSE_MS)) {
    const state = await patiently(api.state(user));
    look();
    if (state && state.version > version) return state;
    await new Promise((resume) => setTimeout(resume, pause));
  }
  return undefined;
}

/** Nothing where a service has just not answered: it is asked again. */
async function patiently<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof ApiError && error.status === 503) return undefined;
    throw error;
  }
}

/** The middle of the totals, in milliseconds; undefined without any. */
export function median(values: number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length % 2) return sorted[middle];
  const [low, high] = [sorted[middle - 1], sorted[middle]];
  return low === undefined || high === undefined ? undefined : (low + high) / 2;
}
