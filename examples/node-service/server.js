import express from "express";

const service = express();
const seen = new Map();

service.get("/healthz", (request, response) => response.send("ok"));

// Counts how often a word was asked for since the service started.
service.get("/words/:word", (request, response) => {
  const { word } = request.params;
  seen.set(word, (seen.get(word) ?? 0) + 1);
  response.json({ word, count: seen.get(word) });
});

service.listen(Number(process.env.PORT), "127.0.0.1");
