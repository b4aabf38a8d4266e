import { useState } from "react";
import { sentence } from "./changes";
import { type Journey, median, PATIENCE_MS, type Stage } from "./journey";
import { amount, feature, ms, title } from "./words";

const STATIONS: { stage: Stage; name: string; meaning: string }[] = [
  { stage: "log", name: "Kafka has it", meaning: "POST /v1/events answered 202: the log acknowledged the event" },
  { stage: "state", name: "Features and history moved", meaning: "the stream consumer wrote PostgreSQL, Valkey and Feast; your version counted up" },
  { stage: "list", name: "New list", meaning: "the model answered from the new history" },
];

/** The way of the latest click, to scale, and how long the earlier ones took. */
export function LoopPanel({ journeys, onAgain }: { journeys: Journey[]; onAgain: (journey: Journey) => void }) {
  const latest = journeys[0];
  const totals = journeys.map((journey) => journey.marks.list).filter((total) => total !== undefined);
  const middle = median(totals);
  const [isOpen, setIsOpen] = useState(false); // on a narrow page it is a bar until somebody opens it
  const waiting = latest && !latest.fault && STATIONS.find(({ stage }) => latest.marks[stage] === undefined);
  return (
    <aside className="loop" aria-labelledby="loop-heading" data-open={isOpen}>
      <header>
        <h2 id="loop-heading">The loop</h2>
        <span className="total">
          {latest === undefined ? <small className="hint">click anything</small> : latest.fault ? <span className="alarm">failed</span> : waiting ? <small>{waiting.name}…</small> : ms(latest.marks.list)}
        </span>
        <button type="button" className="quiet toggle" aria-expanded={isOpen} onClick={() => setIsOpen(!isOpen)}>
          {isOpen ? "Less" : "More"}
        </button>
      </header>
      {latest === undefined ? (
        <p className="note">Click anything. The event goes to the API, into Kafka, through the stream consumer into your features, and comes back as another list. Here you see how long each step took, as your browser measured it.</p>
      ) : (
        <Latest journey={latest} onAgain={onAgain} />
      )}
      {totals.length > 1 && (
        <div className="earlier">
          <h3>
            {totals.length} clicks, median {ms(middle)}
          </h3>
          <ol aria-label="Milliseconds from click to new list, latest first">
            {journeys.slice(0, 12).map((journey) => (
              <li key={journey.id}>
                <span className="name">{title(journey.item)}</span>
                <span className="bar" style={{ inlineSize: `${(100 * (journey.marks.list ?? 0)) / Math.max(...totals)}%` }} aria-hidden="true" />
                <span className="figure">{journey.fault ? "failed" : ms(journey.marks.list)}</span>
              </li>
            ))}
          </ol>
        </div>
      )}
      <p className="visually-hidden" role="status">
        {latest?.fault ?? (latest?.change && `${title(latest.item)}: new list after ${ms(latest.marks.list)}, ${sentence(latest.change)}`)}
      </p>
    </aside>
  );
}

function Latest({ journey, onAgain }: { journey: Journey; onAgain: (journey: Journey) => void }) {
  const total = journey.marks.list ?? journey.marks.state ?? journey.marks.log ?? 1;
  const waiting = STATIONS.find(({ stage }) => journey.marks[stage] === undefined)?.stage;
  return (
    <>
      <p className="clicked">
        You clicked <strong>{title(journey.item)}</strong>
      </p>
      <ol className="stations">
        {STATIONS.map(({ stage, name, meaning }, at) => {
          const reached = journey.marks[stage];
          const earlier = at === 0 ? 0 : (journey.marks[STATIONS[at - 1]?.stage ?? "log"] ?? 0);
          const state = reached !== undefined ? "reached" : journey.fault ? "failed" : stage === waiting ? "waiting" : "ahead";
          return (
            <li key={stage} className={state}>
              <span className="name" title={meaning}>
                {name}
              </span>
              <span className="figure">{reached === undefined ? (state === "waiting" ? "…" : "") : `+${ms(reached - earlier)}`}</span>
              <span className="track" aria-hidden="true">
                {reached !== undefined && (
                  <span style={{ insetInlineStart: `${(100 * earlier) / total}%`, inlineSize: `max(3px, ${(100 * (reached - earlier)) / total}%)` }} />
                )}
              </span>
              <span className="meaning">{meaning}</span>
            </li>
          );
        })}
      </ol>
      {journey.fault && (
        <div className="fault">
          <p>{journey.fault}</p>
          {journey.marks.log === undefined && (
            <button type="button" onClick={() => onAgain(journey)}>
              Send it again
            </button>
          )}
        </div>
      )}
      {journey.change && (
        <p className="outcome">
          The list: <strong>{sentence(journey.change)}</strong>
        </p>
      )}
      {journey.after && <Features journey={journey} />}
      {journey.marks.state !== undefined && (
        <p className="note">
          Measured here, from the click. Your state was looked at {journey.looks} {journey.looks === 1 ? "time" : "times"} (for {PATIENCE_MS / 1000} s at most), so the middle step may be late by one look.
        </p>
      )}
    </>
  );
}

function Features({ journey }: { journey: Journey }) {
  const { before, after } = journey;
  const names = Object.keys({ ...before.features, ...after?.features }).sort();
  if (!after || names.length === 0) return null;
  return (
    <table>
      <caption>Your online features</caption>
      <tbody>
        {names.map((name) => {
          const [was, is] = [amount(before.features[name]), amount(after.features[name])];
          return (
            <tr key={name}>
              <th scope="row">{feature(name)}</th>
              <td>{was === is ? is : <>{was} → <strong>{is}</strong></>}</td>
            </tr>
          );
        })}
        <tr>
          <th scope="row">version of your state</th>
          <td>
            {before.version} → <strong>{after.version}</strong>
          </td>
        </tr>
      </tbody>
    </table>
  );
}
