/** Beside the list that a user gets, the one that another variant or another model would give the same user now. */
import { type Answer, api, type Domain, LENGTH, type OfferedModel, type Overview } from "./api";
import { Card, type CardActions, Waiting } from "./Card";
import { Fault } from "./Fault";
import { useGlide, useLoad } from "./hooks";
import { walk } from "./Shelf";
import { ms } from "./words";

/** What is compared with; an empty name switches that part off. */
export interface Other {
  variant?: string;
  model?: string;
}

interface SwitchProps {
  overview: Overview;
  answer: Answer;
  variant: string | undefined;
  model: OfferedModel | undefined;
  onCompare: (other: Other) => void;
}

const ROLES: Record<OfferedModel["role"], string> = { champion: "champion", candidate: "candidate", beside: "" };
const named = ({ model, model_version, role }: OfferedModel) => [model, model_version, ROLES[role]].filter(Boolean).join(" · ");

export function Switch({ overview, answer, variant, model, onCompare }: SwitchProps) {
  const variants = Object.keys(overview.variants).filter((each) => each !== answer.variant);
  const models = overview.models.filter((each) => each.model_version !== answer.model_version);
  if (variants.length + models.length === 0) return null;
  return (
    <div className="switch">
      {variants.length > 0 && (
        <fieldset className="segments">
          <legend>Compare with variant</legend>
          {["", ...variants].map((each) => (
            <label key={each}>
              <input type="radio" name="compare" checked={(variant ?? "") === each} onChange={() => onCompare({ variant: each })} />
              <span>{each || "none"}</span>
            </label>
          ))}
        </fieldset>
      )}
      {models.length > 0 && (
        <label className="model">
          <span>and model</span>
          <select value={model?.model_version ?? ""} onChange={(event) => onCompare({ model: event.target.value })}>
            <option value="">none other</option>
            {models.map((each) => (
              <option key={each.model_version} value={each.model_version}>
                {named(each)}
              </option>
            ))}
          </select>
        </label>
      )}
    </div>
  );
}

interface ComparedProps extends CardActions {
  user: string;
  domain: Domain;
  answer: Answer;
  variant: string | undefined;
  model: OfferedModel | undefined;
}

export function Compared({ user, domain, answer, variant, model, ...actions }: ComparedProps) {
  // asked anew for each list that the user gets, so that a click changes both sides
  const wanted = `${user} ${domain} ${variant} ${model?.model_version} ${answer.request_id}`;
  const load = useLoad(wanted, async (signal) => {
    const started = performance.now();
    const preview = await api.preview(user, { variant, model_version: model?.model_version }, domain, LENGTH, signal);
    return { preview, took: performance.now() - started };
  });
  const yours = new Map(answer.items.map((item) => [item.item_id, item.rank]));
  const items = load.value?.preview.items ?? [];
  const common = items.filter((item) => yours.has(item.item_id)).length;
  const grid = useGlide(items.map((item) => item.item_id).join());
  return (
    <div className="compared">
      <header>
        <h3>You would get</h3>
        <p className="note">
          Model <code>{model?.model ?? answer.model}</code> {model?.model_version ?? answer.model_version}, variant <code>{variant ?? answer.variant}</code>
        </p>
      </header>
      {load.fault ? (
        <Fault fault={load.fault} again={load.reload} />
      ) : load.value && items.length === 0 ? (
        <p className="empty">It has nothing to recommend here.</p>
      ) : (
        <ul className="grid" ref={grid} onKeyDown={walk} aria-busy={load.value === undefined}>
          {load.value ? (
            items.map((item) => {
              const rank = yours.get(item.item_id);
              return <Card key={item.item_id} item={item} badge={rank ? { text: `yours: ${rank}`, kind: "common" } : undefined} {...actions} />;
            })
          ) : (
            <Waiting cards={LENGTH} />
          )}
        </ul>
      )}
      <p className="note outcome" role="status">
        {load.value && (
          <>
            {common} of {items.length} are in your list too; asked and drawn up in {ms(load.value.took)}.{" "}
          </>
        )}
        A preview: nothing of it is logged, and you stay in <code>{answer.variant}</code>.
      </p>
    </div>
  );
}
