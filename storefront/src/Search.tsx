import { useEffect, useRef } from "react";
import { api, type CatalogueItem, type Domain, type Overview } from "./api";
import { Card, type CardActions, Waiting } from "./Card";
import { Fault } from "./Fault";
import { useLoad } from "./hooks";
import { walk } from "./Shelf";
import { DOMAIN_NAMES } from "./words";

const PAGE = 36;
const CHIPS = 14;
const LONGEST_CHIP = 28; // some sources call a whole sentence a category

interface BarProps {
  domain: Domain;
  overview: Overview;
  text: string;
  category: string | undefined;
  onText: (text: string) => void;
  onCategory: (category: string) => void;
}

export function SearchBar({ domain, overview, text, category, onText, onCategory }: BarProps) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const slash = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      field.current?.focus();
    };
    addEventListener("keydown", slash);
    return () => removeEventListener("keydown", slash);
  }, []);
  const known = overview.domains.find((each) => each.domain === domain)?.categories ?? [];
  return (
    <search className="search">
      <input
        ref={field}
        type="search"
        aria-label={`Search ${DOMAIN_NAMES[domain].toLowerCase()} by title`}
        placeholder={`Search ${DOMAIN_NAMES[domain].toLowerCase()} by title`}
        value={text}
        maxLength={100}
        onChange={(event) => onText(event.target.value)}
        onKeyDown={(event) => event.key === "Escape" && onText("")}
      />
      <div className="chips" role="group" aria-label="Categories">
        {known.filter(({ category: name }) => name.length <= LONGEST_CHIP || name === category).slice(0, CHIPS).map(({ category: name }) => (
          <button key={name} type="button" aria-pressed={name === category} onClick={() => onCategory(name === category ? "" : name)}>
            {name}
          </button>
        ))}
      </div>
    </search>
  );
}

interface ResultProps extends CardActions {
  domain: Domain;
  text: string;
  category: string | undefined;
}

export function Results({ domain, text, category, ...actions }: ResultProps) {
  const found = useLoad(`${domain}\n${category}\n${text}`, async (signal) => {
    await new Promise((resume) => setTimeout(resume, 120)); // until the typing pauses
    signal.throwIfAborted();
    return api.items({ domain, text, category, k: PAGE }, signal);
  });
  const what = [text && `“${text}”`, category].filter(Boolean).join(" in ");
  const items: CatalogueItem[] | undefined = found.value?.items;
  return (
    <section aria-labelledby="results" className="for-you">
      <header>
        <div>
          <h2 id="results">{what}</h2>
          <p className="note" role="status">
            {found.value ? `${found.value.total.toLocaleString("en")} found${found.value.total > PAGE ? `, the ${PAGE} most popular shown` : ""}` : "Looking…"}
          </p>
        </div>
      </header>
      {found.fault ? (
        <Fault fault={found.fault} again={found.reload} />
      ) : items?.length === 0 ? (
        <p className="empty">Nothing here is called so. Fewer words find more.</p>
      ) : (
        <ul className="grid" onKeyDown={walk}>
          {items ? items.map((item) => <Card key={item.item_id} item={item} {...actions} />) : <Waiting cards={12} />}
        </ul>
      )}
    </section>
  );
}
