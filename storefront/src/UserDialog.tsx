import { type FormEvent, useState } from "react";
import { api, type Domain } from "./api";
import { Dialog } from "./Dialog";
import { Fault } from "./Fault";
import { useLoad } from "./hooks";
import { DOMAIN_NAMES } from "./words";

interface Props {
  domain: Domain;
  user: string | undefined;
  onPick: (user: string) => void;
  onClose: () => void;
}

export const newcomer = () => `guest:${crypto.randomUUID().slice(0, 8)}`;

/** Pick somebody whom the store knows, become somebody new, or name somebody. */
export function UserDialog({ domain, user, onPick, onClose }: Props) {
  const known = useLoad(domain, (signal) => api.users(domain, signal));
  const [name, setName] = useState("");
  const enter = (event: FormEvent) => {
    event.preventDefault();
    if (name.trim()) onPick(name.trim());
  };
  return (
    <Dialog heading="Who are you?" onClose={onClose}>
      <button type="button" className="primary wide" onClick={() => onPick(newcomer())}>
        Become somebody new
      </button>
      <h3>Users of {DOMAIN_NAMES[domain].toLowerCase()}</h3>
      {known.fault ? (
        <Fault fault={known.fault} again={known.reload} />
      ) : known.value?.users.length === 0 ? (
        <p className="empty">The store knows nobody with a history here yet.</p>
      ) : (
        <ul className="users">
          {known.value?.users.map((each) => (
            <li key={each.user_id}>
              <button type="button" onClick={() => onPick(each.user_id)} aria-pressed={each.user_id === user}>
                <span>{each.user_id}</span>
                <span className="figure">{each.history_items.toLocaleString("en")} items</span>
              </button>
            </li>
          ))}
        </ul>
      )}
      <form onSubmit={enter} className="by-name">
        <label>
          Or by name
          <input value={name} onChange={(event) => setName(event.target.value)} maxLength={256} placeholder="ml:17" autoComplete="off" />
        </label>
        <button type="submit">Go</button>
      </form>
    </Dialog>
  );
}
