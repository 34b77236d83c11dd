-- Builds of one source as a family, builds with parts, and a lease for each attempt (format of the ledger unchanged; the
-- projections are folded again after this migration).

ALTER TABLE build ADD COLUMN family TEXT NOT NULL DEFAULT '';
ALTER TABLE build ADD COLUMN again TEXT;
ALTER TABLE build ADD COLUMN platforms TEXT;
ALTER TABLE build ADD COLUMN actor TEXT;
CREATE INDEX build_by_family ON build (component, family, number);

-- Where a component's home has gone, and which entry says so.
ALTER TABLE component ADD COLUMN moved BIGINT;
ALTER TABLE component ADD COLUMN place TEXT;

CREATE TABLE part (
    component TEXT NOT NULL,
    number BIGINT NOT NULL,
    platform TEXT NOT NULL,
    digest TEXT,
    log TEXT,
    reason TEXT,
    actor TEXT,
    PRIMARY KEY (component, number, platform)
);

-- operational ----------------------------------------------------------------------------------------------

-- Who is building. A lost lease costs a repeated build, never a name, so the old ones are not carried over.
DROP TABLE lease;
CREATE TABLE lease (
    component TEXT NOT NULL,
    build_key TEXT NOT NULL,
    platform TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    token TEXT NOT NULL,
    holder TEXT NOT NULL,
    process TEXT,
    until_millis BIGINT NOT NULL,
    delivered TEXT,
    failed BIGINT NOT NULL,
    PRIMARY KEY (component, build_key, platform, attempt)
);
