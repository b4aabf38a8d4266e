import { useEffect, useState } from "react";

const THEMES = { system: "◐", light: "☀", dark: "☾" } as const;
type Name = keyof typeof THEMES;
const NEXT: Record<Name, Name> = { system: "light", light: "dark", dark: "system" };

export function Theme() {
  const [theme, setTheme] = useState<Name>(() => {
    const kept = localStorage.getItem("theme") ?? "";
    return kept in THEMES ? (kept as Name) : "system";
  });
  useEffect(() => {
    document.documentElement.dataset["theme"] = theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  return (
    <button type="button" className="quiet" onClick={() => setTheme(NEXT[theme])} aria-label={`Theme: ${theme}`} title={`Theme: ${theme}`}>
      <span aria-hidden="true">{THEMES[theme]}</span>
    </button>
  );
}
