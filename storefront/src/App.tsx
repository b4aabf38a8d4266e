import { useCallback, useEffect, useRef, useState } from "react";
import { type Answer, api, type CatalogueItem, type Domain, LENGTH, type Overview, type UserView } from "./api";
import { Fault } from "./Fault";
import { ForYou, useReasons } from "./ForYou";
import { type Load, useAddress, useLoad } from "./hooks";
import { type Journey, travel } from "./journey";
import { LoopPanel } from "./LoopPanel";
import { Results, SearchBar } from "./Search";
import { Shelf } from "./Shelf";
import { Theme } from "./Theme";
import { newcomer, UserDialog } from "./UserDialog";
import { WhyDialog } from "./WhyDialog";
import { because, DOMAIN_NAMES, title } from "./words";

const SHELF = 18;
const LOOK_AGAIN_MS = 3000;

export function App() {
  const overview = useLoad("overview", (signal) => api.overview(signal));
  const isMissing = overview.fault?.status === 503;
  useEffect(() => {
    if (!isMissing) return;
    const timer = setInterval(overview.refresh, LOOK_AGAIN_MS);
    return () => clearInterval(timer);
  }, [isMissing, overview.refresh]);
  const domains = overview.value?.domains.filter((each) => each.items > 0) ?? [];
  if (overview.value && domains.length) return <Storefront overview={overview.value} domains={domains.map((each) => each.domain)} />;
  return (
    <main className="start">
      <h1>Storefront</h1>
      {isMissing || overview.value ? (
        <p>
          No model is deployed yet, so there is nothing to show. <code>make demo</code> trains and deploys one; this page looks again
          every {LOOK_AGAIN_MS / 1000} seconds.
        </p>
      ) : overview.fault ? (
        <Fault fault={overview.fault} again={overview.reload} />
      ) : (
        <p className="note">Asking the API…</p>
      )}
    </main>
  );
}

function Storefront({ overview, domains }: { overview: Overview; domains: Domain[] }) {
  const [address, go] = useAddress();
  const [picking, setPicking] = useState(false);
  const domain = domains.find((each) => each === address.domain) ?? domains[0] ?? "movies";
  const first = useLoad(address.user ? undefined : domain, async (signal) => {
    const known = await api.users(domain, signal).catch(() => ({ users: [] })); // a key may not open it: be somebody new
    return known.users[0]?.user_id ?? newcomer();
  });
  const user = address.user ?? first.value;
  return (
    <>
      <a className="skip" href="#main">
        To the shelves
      </a>
      <header className="top">
        <h1>
          <img src="./icon.svg" alt="" width="28" height="28" /> Storefront
        </h1>
        <nav aria-label="Domains">
          {domains.map((each) => (
            <a
              key={each}
              href={`?domain=${each}`}
              aria-current={each === domain ? "page" : undefined}
              onClick={(event) => {
                event.preventDefault();
                go({ domain: each, text: "", category: "", variant: "", model: "" });
              }}
            >
              {DOMAIN_NAMES[each]}
            </a>
          ))}
        </nav>
        <div className="tools">
          <button type="button" className="user" onClick={() => setPicking(true)}>
            <span className="visually-hidden">You are </span>
            {user ?? "…"}
          </button>
          <Theme />
        </div>
      </header>
      {user && <Visit key={`${user} ${domain}`} user={user} domain={domain} overview={overview} address={address} go={go} />}
      {picking && (
        <UserDialog
          domain={domain}
          user={user}
          onClose={() => setPicking(false)}
          onPick={(picked) => {
            go({ user: picked });
            setPicking(false);
          }}
        />
      )}
    </>
  );
}

interface VisitProps {
  user: string;
  domain: Domain;
  overview: Overview;
  address: ReturnType<typeof useAddress>[0];
  go: ReturnType<typeof useAddress>[1];
}

/** One user in one domain: the shelves, and every click on its way. */
function Visit({ user, domain, overview, address, go }: VisitProps) {
  const list = useLoad(`list ${user} ${domain}`, (signal) => api.list(user, domain, LENGTH, signal));
  const state = useLoad(`state ${user}`, (signal) => api.state(user, signal));
  const [journeys, setJourneys] = useState<Journey[]>([]);
  const [asked, setAsked] = useState<CatalogueItem>();
  const { why, titles } = useReasons(list.value);
  const { busy, click } = useClicks(user, domain, list, setJourneys, state);

  const own = state.value?.latest_items.filter((item) => item.domain === domain) ?? [];
  const [latest, second] = own;
  const similarTo = (item: CatalogueItem | undefined) => async (signal: AbortSignal) =>
    (await api.similar(item?.item_id ?? "", domain, SHELF, signal)).items;
  const similar = useLoad(latest && `similar ${latest.item_id}`, similarTo(latest));
  const similarSecond = useLoad(second && `similar ${second.item_id}`, similarTo(second));
  const browse = (order: string) => async (signal: AbortSignal) => (await api.items({ domain, order, k: SHELF }, signal)).items;
  const popular = useLoad(`popular ${domain}`, browse("popular"));
  const newest = useLoad(`newest ${domain}`, browse("newest"));
  const hasYears = newest.value?.some((item) => item.published_year);

  const { text = "", category } = address;
  const actions = { onClick: (item: CatalogueItem) => click(item), busy };
  return (
    <div className="columns">
      <main id="main">
        <SearchBar domain={domain} overview={overview} text={text} category={category} onText={(words) => go({ text: words })} onCategory={(name) => go({ category: name })} />
        {text || category ? (
          <Results domain={domain} text={text} category={category} {...actions} />
        ) : (
          <>
            <ForYou
              user={user} domain={domain} overview={overview} list={list} historyItems={state.value?.history_items ?? 0}
              change={journeys[0]?.change} variant={address.variant} model={address.model} onCompare={go}
              why={why} titles={titles} onWhy={setAsked} {...actions}
            />
            {latest && <Shelf heading={because(latest)} note="Nearest in the model, the same for everybody" load={similar} empty="The model knows nothing like it." {...actions} />}
            {second && <Shelf heading={because(second)} load={similarSecond} empty="The model knows nothing like it." {...actions} />}
            <Shelf heading={`Popular in ${DOMAIN_NAMES[domain].toLowerCase()}`} note="Most interactions in the data that the model was trained on" load={popular} empty="No item of this domain can be shown." reason={(_, place) => `number ${place + 1}`} {...actions} />
            {hasYears && <Shelf heading="New" note="By the year in the catalogue" load={newest} empty="No item has a year." {...actions} />}
          </>
        )}
        <footer>
          <p>
            Model <strong>{overview.model}</strong>, version {list.value?.model_version ?? overview.model_version}, trained on everything before{" "}
            {overview.as_of.slice(0, 10)}; {overview.items.toLocaleString("en")} items.
            {list.value && (
              <>
                {" "}
                Variant <strong>{list.value.variant}</strong>.
              </>
            )}{" "}
            <a href="../docs">The API</a>
          </p>
        </footer>
      </main>
      <div className="side">
        <LoopPanel journeys={journeys} onAgain={({ item, id }) => click(item, id)} />
        {own.length > 0 && (
          <section className="history" aria-labelledby="history">
            <h2 id="history">Your latest</h2>
            <ol>
              {own.slice(0, 6).map((item) => (
                <li key={item.item_id}>{title(item)}</li>
              ))}
            </ol>
          </section>
        )}
      </div>
      {asked && list.value && <WhyDialog item={asked} answer={list.value} why={why} titles={titles} onClose={() => setAsked(undefined)} />}
    </div>
  );
}

/** Clicks of one user, one after the other: the next waits until the one before has arrived. */
function useClicks(
  user: string,
  domain: Domain,
  list: Load<Answer>,
  setJourneys: (change: (before: Journey[]) => Journey[]) => void,
  state: Load<UserView>,
) {
  const [busy, setBusy] = useState<string>();
  const shown = useRef(list.value);
  shown.current = list.value ?? shown.current;
  const known = useRef<UserView>(undefined);
  known.current = state.value ?? known.current;
  const queue = useRef<Promise<void>>(Promise.resolve());
  const isGone = useRef(false);
  useEffect(() => {
    isGone.current = false;
    return () => void (isGone.current = true);
  }, []);
  const follow = async (item: CatalogueItem, eventId?: string) => {
    if (isGone.current) return;
    setBusy(item.item_id);
    const isRecommended = shown.current?.items.some((each) => each.item_id === item.item_id) ?? false;
    const tell = (journey: Journey) => {
      if (isGone.current) return;
      setJourneys((before) => [journey, ...before.filter((each) => each.id !== journey.id)]);
      if (journey.after) state.set(journey.after);
    };
    const unknown: UserView = { user_id: user, variant: "", version: 0, history_items: 0, features: {}, latest_items: [] };
    const answer = await travel(
      { user, domain, item, shown: shown.current, isRecommended, length: LENGTH, eventId },
      known.current ?? unknown,
      tell,
    );
    if (isGone.current) return;
    if (answer) {
      shown.current = answer;
      list.set(answer);
    }
    setBusy(undefined);
  };
  const click = useCallback((item: CatalogueItem, eventId?: string) => {
    queue.current = queue.current.then(() => follow(item, eventId));
  }, []);
  return { busy, click };
}
