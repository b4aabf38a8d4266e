import { useEffect, useMemo, useState } from "react";
import {
  type Answer,
  api,
  ApiError,
  type CatalogueItem,
  type Domain,
  type Explanation,
  LENGTH,
  type Overview,
} from "./api";
import { Card, type CardActions, Waiting } from "./Card";
import type { Change } from "./changes";
import { Compared, type Other, Switch } from "./Compared";
import { Fault } from "./Fault";
import { type Load, useGlide, useLoad } from "./hooks";
import { walk } from "./Shelf";
import { rung, title } from "./words";

interface Props extends CardActions {
  user: string;
  domain: Domain;
  overview: Overview;
  list: Load<Answer>;
  historyItems: number;
  change: Change | undefined;
  variant: string | undefined;
  model: string | undefined;
  onCompare: (other: Other) => void;
  why: Explanation | undefined;
  titles: Map<string, string>;
}

/** The user's own list, the reason of each item, and on request beside it what another variant or model would show. */
export function ForYou(props: Props) {
  const { user, domain, overview, list, change, why, titles } = props;
  const answer = list.value;
  const otherVariant = props.variant && props.variant in overview.variants && props.variant !== answer?.variant ? props.variant : undefined;
  const otherModel = overview.models.find((each) => each.model_version === props.model && each.model_version !== answer?.model_version);
  const isComparing = answer !== undefined && (otherVariant !== undefined || otherModel !== undefined);
  const grid = useGlide(answer?.items.map((item) => item.item_id).join() ?? "");
  const drivers = useMemo(() => new Map(why?.items.map((item) => [item.item_id, [...(item.drivers ?? [])]])), [why]);
  // Of an item's strongest drivers the one that the fewest other items share says most about this one.
  const shared = useMemo(() => {
    const counts = new Map<string, number>();
    for (const { item_id } of [...drivers.values()].flat()) counts.set(item_id, (counts.get(item_id) ?? 0) + 1);
    return counts;
  }, [drivers]);

  const reason = (item: CatalogueItem) => {
    const named = (drivers.get(item.item_id) ?? []).filter((driver) => driver.contribution > 0 && titles.has(driver.item_id));
    const [because] = named.sort((a, b) => (shared.get(a.item_id) ?? 0) - (shared.get(b.item_id) ?? 0));
    if (because) return <>because of {titles.get(because.item_id)}</>;
    return answer?.rung === "personalised" ? "fits your history" : answer?.rung === "session" ? "fits your session" : "popular";
  };
  const badge = (item: CatalogueItem) => {
    const places = change?.moves[item.item_id];
    if (change?.entered.includes(item.item_id)) return { text: "new", kind: "new" as const };
    if (!places) return undefined;
    return places > 0 ? { text: `▲ ${places}`, kind: "up" as const } : { text: `▼ ${-places}`, kind: "down" as const };
  };

  return (
    <section aria-labelledby="for-you" className="for-you">
      <header>
        <div>
          <h2 id="for-you">For you</h2>
          <p className="note">{answer ? rung(answer.rung, domain, props.historyItems) : "Asking the model…"}</p>
        </div>
        {answer && <Switch overview={overview} answer={answer} variant={otherVariant} model={otherModel} onCompare={props.onCompare} />}
      </header>
      {list.fault ? (
        <Fault fault={list.fault} again={list.reload} />
      ) : (
        <div className={isComparing ? "pair" : undefined}>
          <div className="mine">
            {isComparing && (
              <header>
                <h3>You get</h3>
                <p className="note">
                  Model <code>{answer.model}</code> {answer.model_version}, variant <code>{answer.variant}</code>
                </p>
              </header>
            )}
            {answer?.items.length === 0 ? (
              <p className="empty">Nothing is left to recommend here: everything was seen, or the model knows no item of this domain.</p>
            ) : (
              <ul className="grid" ref={grid} onKeyDown={walk} aria-busy={answer === undefined}>
                {answer === undefined ? (
                  <Waiting cards={LENGTH} />
                ) : (
                  answer.items.map((item) => (
                    <Card key={item.item_id} item={item} reason={reason(item)} badge={badge(item)} onClick={props.onClick} busy={props.busy} {...(props.onWhy ? { onWhy: props.onWhy } : {})} />
                  ))
                )}
              </ul>
            )}
          </div>
          {isComparing && <Compared user={user} domain={domain} answer={answer} variant={otherVariant} model={otherModel} onClick={props.onClick} busy={props.busy} />}
        </div>
      )}
    </section>
  );
}

/** Why these items: the record of an answer, which is written a moment after it, and the titles that it speaks of. */
export function useReasons(answer: Answer | undefined): { why: Explanation | undefined; titles: Map<string, string> } {
  const why = useLoad(answer?.request_id, (signal) => patientWhy(answer?.request_id ?? "", signal));
  const [titles, setTitles] = useState(new Map<string, string>());
  const record = why.value;
  useEffect(() => {
    const named = record?.items.flatMap((item) => item.drivers?.map((driver) => driver.item_id) ?? []) ?? [];
    const unknown = [...new Set(named)].filter((id) => !titles.has(id)).slice(0, 100);
    if (!unknown.length) return;
    const controller = new AbortController();
    api.items({ item_ids: unknown.join(","), k: 100 }, controller.signal).then(
      (found) => setTitles((before) => new Map([...before, ...found.items.map((item) => [item.item_id, title(item)] as const)])),
      () => undefined, // the list stands without its reasons' names
    );
    return () => controller.abort();
  }, [record]);
  return { why: record, titles };
}

async function patientWhy(request: string, signal: AbortSignal): Promise<Explanation> {
  for (let tries = 0; ; tries++) {
    try {
      return await api.why(request, signal);
    } catch (error) {
      // Not written yet, or a store that is silent for a moment: both pass.
      if (!(error instanceof ApiError) || ![404, 503].includes(error.status) || tries >= 20) throw error;
      await new Promise((resume) => setTimeout(resume, 60 + 20 * tries));
    }
  }
}
