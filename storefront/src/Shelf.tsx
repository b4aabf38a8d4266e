import { type KeyboardEvent, type ReactNode, useId } from "react";
import type { CatalogueItem } from "./api";
import { Card, type CardActions, Waiting } from "./Card";
import type { Load } from "./hooks";
import { Fault } from "./Fault";

interface Props extends CardActions {
  heading: string;
  note?: ReactNode;
  load: Omit<Load<CatalogueItem[]>, "set">;
  empty: string;
  reason?: (item: CatalogueItem, place: number) => ReactNode;
}

/** One row of items to move through sideways, by hand, wheel or arrow keys. */
export function Shelf({ heading, note, load, empty, reason, ...actions }: Props) {
  const id = useId();
  return (
    <section aria-labelledby={id} className="shelf">
      <h2 id={id}>{heading}</h2>
      {note && <p className="note">{note}</p>}
      {load.fault ? (
        <Fault fault={load.fault} again={load.reload} />
      ) : load.value?.length === 0 ? (
        <p className="empty">{empty}</p>
      ) : (
        <ul className="row" onKeyDown={walk} aria-busy={load.value === undefined}>
          {load.value === undefined ? (
            <Waiting cards={8} />
          ) : (
            load.value.map((item, place) => <Card key={item.item_id} item={item} reason={reason?.(item, place)} {...actions} />)
          )}
        </ul>
      )}
    </section>
  );
}

/** Move the focus from card to card; Home and End go to the first and the last. */
export function walk(event: KeyboardEvent<HTMLElement>): void {
  const cards = [...event.currentTarget.querySelectorAll<HTMLElement>(".card-main")];
  const at = cards.findIndex((card) => card.closest(".card")?.contains(document.activeElement));
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: cards.length - 1 }[event.key];
  if (at < 0 || to === undefined || !cards[to]) return;
  event.preventDefault();
  cards[to].focus();
  cards[to].scrollIntoView({ block: "nearest", inline: "nearest" });
}
