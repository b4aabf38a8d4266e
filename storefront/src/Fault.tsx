import { type FormEvent, useState } from "react";
import { type ApiError, useKey } from "./api";

/** What went wrong, in the API's own words, and the way on. */
export function Fault({ fault, again }: { fault: ApiError; again: () => void }) {
  const [key, setKey] = useState("");
  const enter = (event: FormEvent) => {
    event.preventDefault();
    useKey(key);
    again();
  };
  if (fault.status === 401 || fault.status === 403)
    return (
      <form className="fault" onSubmit={enter}>
        <p>
          <strong>{fault.status === 401 ? "This API asks for a key." : "Your key does not open this."}</strong> {fault.message}
        </p>
        <label>
          <span>
            Key with the scope <code>admin</code>
          </span>
          <input type="password" autoComplete="off" value={key} onChange={(event) => setKey(event.target.value)} required />
        </label>
        <button type="submit">Use it in this tab</button>
      </form>
    );
  return (
    <div className="fault" role="alert">
      <p>
        <strong>{fault.status === 503 ? "A service is away." : "That did not work."}</strong> {fault.message}
      </p>
      <button type="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}
