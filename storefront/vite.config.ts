import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Relative addresses: the page works behind any prefix that a proxy puts before the serving app.
export default defineConfig({
  base: "./",
  plugins: [react()],
  build: {
    outDir: "../serving/demo",
    emptyOutDir: true,
    assetsInlineLimit: 0, // a data: script or style would break the content security policy
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: { proxy: { "/v1": "http://127.0.0.1:18080" } },
});
