import type { Answer, CatalogueItem, Explanation } from "./api";
import { Dialog } from "./Dialog";
import { title } from "./words";

interface Props {
  item: CatalogueItem;
  answer: Answer;
  why: Explanation | undefined;
  titles: Map<string, string>;
  onClose: () => void;
}

/** What the record of an answer tells of one of its items. */
export function WhyDialog({ item, answer, why, titles, onClose }: Props) {
  const shown = why?.items.find((each) => each.item_id === item.item_id);
  const drivers = shown?.drivers ?? [];
  const largest = Math.max(...drivers.map((driver) => Math.abs(driver.contribution)), 0);
  const rest = why && shown && drivers.length ? shown.score - drivers.reduce((sum, driver) => sum + driver.contribution, 0) : 0;
  return (
    <Dialog heading={`Why ${title(item)}?`} onClose={onClose}>
      {!why || !shown ? (
        <p className="empty">The record of this answer is not there (yet): it is written after the answer, and kept for some days.</p>
      ) : (
        <>
          <p>
            Rank <strong>{shown.rank}</strong> with a score of <strong>{shown.score.toPrecision(3)}</strong>, on the rung <code>{why.rung}</code>,
            from {why.history.used_items} of your {why.history.items} items.
          </p>
          {drivers.length > 0 ? (
            <table className="drivers">
              <caption>What of your history made the score</caption>
              <tbody>
                {drivers.map((driver) => (
                  <tr key={driver.item_id}>
                    <th scope="row">{titles.get(driver.item_id) ?? driver.item_id}</th>
                    <td className="track">
                      <span className={driver.contribution < 0 ? "takes" : ""} style={{ inlineSize: `${(100 * Math.abs(driver.contribution)) / largest}%` }} />
                    </td>
                    <td className="figure">{driver.contribution.toPrecision(2)}</td>
                  </tr>
                ))}
                <tr>
                  <th scope="row">all the rest</th>
                  <td className="track">
                    <span className={rest < 0 ? "takes" : ""} style={{ inlineSize: `${Math.min(100, (100 * Math.abs(rest)) / largest)}%` }} />
                  </td>
                  <td className="figure">{rest.toPrecision(2)}</td>
                </tr>
              </tbody>
            </table>
          ) : (
            <p className="note">
              A list of the rung <code>{why.rung}</code> from a model of kind <code>{why.retrieval.kind}</code>: its score is no sum over your history, so no single item
              can be named.
            </p>
          )}
          <dl>
            <dt>Model</dt>
            <dd>
              {why.retrieval.model}, version {why.retrieval.model_version}
              {why.retrieval.source === "precomputed_list" ? " (a precomputed list)" : ""}
            </dd>
            <dt>Trained on</dt>
            <dd>everything before {why.retrieval.as_of.slice(0, 10)}</dd>
            <dt>Variant</dt>
            <dd>
              {answer.variant}
              {why.propensity !== null && `, as ${(100 * why.propensity).toLocaleString("en")} % of all users`}
            </dd>
            <dt>Catalogue</dt>
            <dd>
              {why.filtered.catalogue.toLocaleString("en")} items − {why.filtered.domain.toLocaleString("en")} of other domains −{" "}
              {why.filtered.unavailable.toLocaleString("en")} unavailable − {why.filtered.seen.toLocaleString("en")} seen ={" "}
              {why.filtered.eligible.toLocaleString("en")} ranked
            </dd>
            <dt>Request</dt>
            <dd>
              <code>{why.request_id}</code>
            </dd>
          </dl>
        </>
      )}
    </Dialog>
  );
}
