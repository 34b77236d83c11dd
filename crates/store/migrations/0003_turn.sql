-- Whose database it is, and where writers queue: one row. Where writers queue at a file instead, the number stays 0.

-- operational ----------------------------------------------------------------------------------------------

CREATE TABLE turn (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    store TEXT NOT NULL,
    number BIGINT NOT NULL
);
