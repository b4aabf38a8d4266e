import type { ReactNode } from "react";
import type { CatalogueItem } from "./api";
import { Cover } from "./cover";
import { DOMAIN_NAMES, title, year } from "./words";

export interface CardActions {
  onClick: (item: CatalogueItem) => void;
  onWhy?: (item: CatalogueItem) => void;
  /** The item whose event is on its way. */
  busy: string | undefined;
}

export interface CardProps extends CardActions {
  item: CatalogueItem;
  reason?: ReactNode;
  badge?: { text: string; kind: "new" | "up" | "down" | "common" } | undefined;
}

export function Card({ item, reason, badge, onClick, onWhy, busy }: CardProps) {
  const details = [year(item), ...item.categories.slice(0, 2)].filter(Boolean).join(" · ");
  const name = title(item);
  return (
    <li className="card" data-id={item.item_id} aria-busy={busy === item.item_id}>
      <button type="button" className="card-main" onClick={() => onClick(item)}>
        <Cover item={item} />
        {badge && <span className={`badge ${badge.kind}`}>{badge.text}</span>}
        <span className="card-details">{details || DOMAIN_NAMES[item.domain]}</span>
      </button>
      {(reason || onWhy) && (
        <div className="card-reason">
          <span>{reason}</span>
          {onWhy && (
            <button type="button" className="why" onClick={() => onWhy(item)} aria-label={`Why ${name}?`}>
              why?
            </button>
          )}
        </div>
      )}
    </li>
  );
}

export function Waiting({ cards }: { cards: number }) {
  return (
    <>
      {Array.from({ length: cards }, (_, at) => (
        <li key={at} className="card" aria-hidden="true">
          <span className="cover waiting" />
          <span className="line waiting" />
        </li>
      ))}
    </>
  );
}
