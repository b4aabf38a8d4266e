import { useEffect, useMemo, useState } from "react";
import { type Answer, api, ApiError, type CatalogueItem, type Domain, type Explanation, type Overview, type Preview } from "./api";
import { Card, type CardActions, Waiting } from "./Card";
import type { Change } from "./changes";
import { Fault } from "./Fault";
import { type Load, useGlide, useLoad } from "./hooks";
import { walk } from "./Shelf";
import { rung, title } from "./words";

export const LENGTH = 12;

interface Props extends CardActions {
  user: string;
  domain: Domain;
  overview: Overview;
  list: Load<Answer>;
  historyItems: number;
  change: Change | undefined;
  compare: string | undefined;
  onCompare: (variant: string) => void;
  why: Explanation | undefined;
  titles: Map<string, string>;
}

/** The user's own list, the reason of each item, and on request what another variant would show in its place. */
export function ForYou(props: Props) {
  const { user, domain, overview, list, change, compare, why, titles } = props;
  const answer = list.value;
  const others = Object.keys(overview.variants).filter((variant) => variant !== answer?.variant);
  const compared = compare && others.includes(compare) ? compare : undefined;
  const preview = useLoad(
    compared && answer ? `${user} ${domain} ${compared} ${answer.request_id}` : undefined,
    (signal) => api.preview(user, compared ?? "", domain, LENGTH, signal),
  );
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
        {answer && others.length > 0 && (
          <fieldset className="segments">
            <legend>Compare with variant</legend>
            {["", ...others].map((variant) => (
              <label key={variant}>
                <input type="radio" name="compare" checked={(compared ?? "") === variant} onChange={() => props.onCompare(variant)} />
                <span>{variant || "none"}</span>
              </label>
            ))}
          </fieldset>
        )}
      </header>
      {list.fault ? (
        <Fault fault={list.fault} again={list.reload} />
      ) : answer?.items.length === 0 ? (
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
      {compared && answer && <Compared answer={answer} preview={preview} onClick={props.onClick} busy={props.busy} variant={compared} />}
    </section>
  );
}

function Compared({ answer, preview, variant, ...actions }: { answer: Answer; preview: Load<Preview>; variant: string } & CardActions) {
  const yours = new Map(answer.items.map((item) => [item.item_id, item.rank]));
  const items = preview.value?.items ?? [];
  const common = items.filter((item) => yours.has(item.item_id)).length;
  return (
    <div className="compared">
      <h3>
        Variant <code>{variant}</code> would show you
      </h3>
      <p className="note">
        {preview.value ? `${common} of ${items.length} are in your list too. ` : ""}A preview: nothing of it is logged, and you stay in{" "}
        <code>{answer.variant}</code>.
      </p>
      {preview.fault ? (
        <Fault fault={preview.fault} again={preview.reload} />
      ) : (
        <ul className="grid" onKeyDown={walk}>
          {preview.value ? (
            items.map((item) => {
              const rank = yours.get(item.item_id);
              return <Card key={item.item_id} item={item} badge={rank ? { text: `yours: ${rank}`, kind: "common" } : undefined} {...actions} />;
            })
          ) : (
            <Waiting cards={LENGTH} />
          )}
        </ul>
      )}
    </div>
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
      if (!(error instanceof ApiError) || error.status !== 404 || tries >= 12) throw error;
      await new Promise((resume) => setTimeout(resume, 60 + 20 * tries));
    }
  }
}
