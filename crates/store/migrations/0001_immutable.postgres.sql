-- The ledger is append-only, whoever writes to it (invariant I7), also while a replication role is set.
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE TRIGGER entry_keeps_its_rows BEFORE UPDATE OR DELETE OR TRUNCATE ON entry FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER node_keeps_its_rows BEFORE UPDATE OR DELETE OR TRUNCATE ON node FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER checkpoint_keeps_its_rows BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_keeps_its_rows;
ALTER TABLE node ENABLE ALWAYS TRIGGER node_keeps_its_rows;
ALTER TABLE checkpoint ENABLE ALWAYS TRIGGER checkpoint_keeps_its_rows;
