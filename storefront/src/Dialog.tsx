import { type ReactNode, useEffect, useRef } from "react";

/** A modal dialog of the platform's own: focus stays inside, Escape closes, and the focus goes back to where it was. */
export function Dialog({ heading, onClose, children }: { heading: string; onClose: () => void; children: ReactNode }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-label={heading}
      onClose={onClose}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <div className="dialog">
        <header>
          <h2>{heading}</h2>
          <button type="button" className="quiet" onClick={() => dialog.current?.close()} aria-label="Close">
            ✕
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}
