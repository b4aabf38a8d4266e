import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { ApiError } from "./api";

export interface Load<T> {
  value: T | undefined;
  fault: ApiError | undefined;
  reload: () => void;
  /** As `reload`, but what is held stays until there is something new. */
  refresh: () => void;
  set: (value: T) => void;
}

/** Load something whenever `wanted` changes; an answer that comes too late is thrown away. Without a name: nothing. */
export function useLoad<T>(wanted: string | undefined, load: (signal: AbortSignal) => Promise<T>): Load<T> {
  const [held, setHeld] = useState<{ wanted?: string | undefined; value?: T; fault?: ApiError }>({});
  const [tries, setTries] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    if (wanted === undefined) return;
    const controller = new AbortController();
    latest.current(controller.signal).then(
      (value) => !controller.signal.aborted && setHeld({ wanted, value }),
      (error: unknown) => {
        if (controller.signal.aborted) return;
        setHeld({ wanted, fault: error instanceof ApiError ? error : new ApiError(0, "fault", String(error)) });
      },
    );
    return () => controller.abort();
  }, [wanted, tries]);
  const isCurrent = held.wanted === wanted;
  return {
    value: isCurrent ? held.value : undefined,
    fault: isCurrent ? held.fault : undefined,
    reload: useCallback(() => {
      setHeld({});
      setTries((before) => before + 1);
    }, []),
    refresh: useCallback(() => setTries((before) => before + 1), []),
    set: useCallback((value: T) => setHeld((before) => ({ wanted: before.wanted, value })), []),
  };
}

export interface Address {
  domain?: string;
  user?: string;
  text?: string;
  category?: string;
  variant?: string;
  /** A model's version. */
  model?: string;
}

/** Where the visitor is, kept in the page's own address: it can be shared, and the back button works. */
export function useAddress(): [Address, (change: Partial<Address>) => void] {
  const read = () => Object.fromEntries(new URLSearchParams(location.search)) as Address;
  const [address, setAddress] = useState<Address>(read);
  useEffect(() => {
    const moved = () => setAddress(read());
    addEventListener("popstate", moved);
    return () => removeEventListener("popstate", moved);
  }, []);
  const go = useCallback((change: Partial<Address>) => {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(change)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const isTyping = Object.keys(change).every((name) => name === "text");
    history[isTyping ? "replaceState" : "pushState"](null, "", query.size ? `?${query}` : location.pathname);
    setAddress(read());
  }, []);
  return [address, go];
}

export const prefersStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Let the children of an element glide from where they were to where they are; they are known by `data-id`. */
export function useGlide(order: string) {
  const parent = useRef<HTMLUListElement>(null);
  const places = useRef(new Map<string, DOMRect>());
  useLayoutEffect(() => {
    const now = new Map<string, DOMRect>();
    for (const child of parent.current?.querySelectorAll<HTMLElement>("[data-id]") ?? []) {
      const id = child.dataset["id"] ?? "";
      const place = child.getBoundingClientRect();
      const was = places.current.get(id);
      now.set(id, place);
      if (prefersStillness() || places.current.size === 0) continue;
      const frames: Keyframe[] = was
        ? [{ transform: `translate(${was.x - place.x}px, ${was.y - place.y}px)` }, { transform: "none" }]
        : [{ opacity: 0, transform: "scale(.92)" }, { opacity: 1, transform: "none" }];
      if (!was || was.x !== place.x || was.y !== place.y)
        child.animate(frames, { duration: 520, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
    places.current = now;
  }, [order]);
  return parent;
}
