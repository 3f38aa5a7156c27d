"""Does a test bite when a guard is taken out? Seed one bug at a time, and see a test fail.

    DATABASE_URL=postgres:///stagehand python -m tests.teeth [--only NUMBER…] [--jobs 2] [--list]

Each worker has a copy of the code and a database of its own. First all the tests that are named must pass;
then each bug is put in, its tests are run, and it is taken out again. A bug is caught where a test fails;
where the code cannot even be imported nothing is proven, and that is an error too.
Exit status 0 where every bug was caught, 1 where one was not, 2 where the tests could not be run as told.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("stagehand_testdata", "tests", "project", "pyproject.toml")
PACKAGE = "stagehand_testdata"
MISUSE = "Set DATABASE_URL to a PostgreSQL database: DATABASE_URL=postgres:///stagehand"
#: No bug may keep its tests busy for longer.
SECONDS = 120
#: Nor may all tests together, which a busy machine has kept from their end for longer than that.
ALL_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Bug:
    """`old` occurs once in `file` of the package and becomes `new`; then one of `tests` must fail.

    On PostgreSQL, or else on SQLite.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    on_sqlite: bool = False


EXECUTE = "operations/purge/execute.py"
PURGE = "operations/purge/purge.py"
PLAN = "operations/purge/plan.py"
GRAPH = "operations/purge/graph.py"
OWN_WAY = "operations/purge/own_way.py"
SETS = "operations/purge/sets.py"
REFERENCES = "databases/references.py"
LIMITS = "operations/purge/limits.py"
FAILURES = "operations/purge/failures.py"
RUNS = "operations/runs.py"
TOKENS = "operations/tokens.py"
OIDC = "access/oidc.py"
ISSUERS = "access/issuers.py"
GUARDS = "operations/guards.py"
EXTERNALS = "operations/externals.py"
IDENTITIES = "operations/identities.py"
CLERK = "contrib/clerk.py"
REAPER = "operations/reaper.py"
AUDIT = "operations/audit.py"
ADOPTION = "operations/adoption.py"
ENTITIES = "operations/entities.py"
CAPTURE = "isolation/capture.py"
VISIBILITY = "isolation/visibility.py"
STATEMENTS = "isolation/statements.py"
HOOKS = "isolation/hooks.py"
POSTGRESQL = "databases/postgresql.py"
SQLITE = "databases/sqlite.py"
SQLITE_RUNS = "databases/sqlite_runs.py"
SQLITE_TRIGGERS = "databases/sqlite_triggers.py"
BASE = "databases/base.py"
COMPILED = "databases/compiled.py"
MODELS = "models.py"
FINGERPRINTS = "fingerprints.py"
SIGN_IN = "operations/sign_in.py"
SESSIONS = "access/sessions.py"
PRIVILEGES = "access/privileges.py"
ADDRESSES = "operations/addresses.py"
IDEMPOTENCY = "access/idempotency.py"
TRAIL = "access/trail.py"
KEYS = "access/keys.py"
QUOTAS = "access/quotas.py"
VIEWS = "api/views.py"
AUTHENTICATION = "api/authentication.py"
LOGS = "logs.py"

T_KEYS = "access/test_keys.py"
T_QUOTAS = "access/test_quotas.py"
T_ALLOWANCE = "api/test_access_keys.py"
T_EXECUTE = "operations/purge/test_execute.py"
T_HELD = f"{T_EXECUTE}::TestARealRowThatPointsAtATestRow"
T_CONCURRENCY = "operations/purge/test_concurrency.py"
T_LIMITS = "operations/purge/test_limits.py"
T_PLAN = "operations/purge/test_plan.py"
T_GRAPH = "operations/purge/test_graph.py"
T_OWN_WAY = "operations/purge/test_own_way.py"
T_GAPS = "operations/purge/test_teeth_gaps.py"
T_TWO = "operations/purge/test_teeth_locks.py"
T_RUNS = "operations/test_runs.py"
T_REAPER = "operations/test_reaper.py"
T_GUARDS = "operations/test_guards.py"
T_EXTERNALS = "operations/test_externals.py"
T_IDENTITIES = "operations/test_identities.py"
T_CLERK = "contrib/test_clerk.py"
T_FAULTS = "contrib/test_clerk_faults.py"
T_WEBHOOK = "contrib/test_clerk_webhook.py"
T_FILES = "operations/test_files.py"
T_ADOPTION = "operations/test_adoption.py"
T_ADDRESSES = "operations/test_addresses.py"
T_AUDIT = "operations/test_audit.py"
T_ENTITIES = "operations/test_entities.py"
T_TOKENS = "api/test_tokens.py"
T_OIDC = "access/test_oidc.py"
T_ISSUERS = "access/test_issuers.py"
T_DATABASE = "databases/test_guards.py"
T_LOCKS = "databases/test_locks.py"
T_COMPILED = "databases/test_compiled.py"
T_CAPTURE = "isolation/test_capture.py"
T_VISIBILITY = "isolation/test_visibility.py"
T_STATEMENTS = "isolation/test_statements.py"
T_SQLITE_RUNS = "databases/test_sqlite_runs.py"
T_FINGERPRINTS = "test_fingerprints.py"
T_CLEANUP = "api/test_cleanup.py"
T_SESSIONS = "api/test_sessions.py"
T_NOTED = "access/test_sessions.py"
T_ACCOUNTS = "operations/purge/test_accounts.py"
T_PRIVILEGES = "access/test_privileges.py"
T_IDEMPOTENCY = "api/test_idempotency.py"
T_TRAIL = "access/test_trail.py"
T_CANARY = "access/test_canary.py"


BUGS: tuple[Bug, ...] = (
    # --- locks ---
    Bug(
        "creators do not hold the run",
        RUNS,
        "engine.read_shared(_with_clock(test_id, owner).annotate(**annotations))",
        "list(_with_clock(test_id, owner).using(alias).annotate(**annotations))",
        (f"{T_CONCURRENCY}::test_a_closer_waits_for_a_creator_that_joined_an_open_run",),
    ),
    Bug(
        "an open run is not held while some of its rows go",
        RUNS,
        "            return found[0]\n    return lock_exclusively(run) if wait else lock_or_skip(run)",
        "            return found[0]\n    return run",
        (f"{T_TWO}::test_a_clean_up_of_what_is_listed_waits_for_a_creator_in_flight",),
    ),
    Bug(
        "a batch does not hold its run",
        EXECUTE,
        "                    if lock_for_removal(self.run, wait=self.wait) is None:\n"
        "                        raise Busy\n",
        "",
        (f"{T_TWO}::test_each_batch_waits_for_a_creator_in_flight",),
    ),
    Bug(
        "an exclusive read locks nothing",
        BASE,
        "locked = rows.using(self.alias).select_for_update(of=of, skip_locked=skip)",
        "locked = rows.using(self.alias)",
        (f"{T_RUNS}::TestLocks::test_one_that_holds_it_alone_waits_for_creators_and_they_for_it",),
    ),
    Bug(
        "what was read while waiting for the lock is believed",
        BASE,
        '        keys = list(locked.values_list("pk", flat=True))\n'
        "        return list(rows.using(self.alias).filter(pk__in=keys)) if keys else []",
        "        return list(locked)",
        (f"{T_RUNS}::TestLocks::test_one_that_waited_counts_the_entries_that_it_waited_for",),
    ),
    Bug(
        "a claim waits for rows that somebody else has locked",
        BASE,
        "return rows.select_for_update(skip_locked=skip)",
        "return rows.select_for_update()",
        (f"{T_TWO}::test_a_claim_waits_for_nobody",),
    ),
    Bug(
        "a claim locks no row, set by set",
        SETS,
        'free = database(ledger_alias()).skipping_locked(self.rows).values("pk")',
        'free = self.rows.values("pk")',
        (f"{T_TWO}::test_a_claim_waits_for_nobody",),
    ),
    Bug(
        "a set that meets a locked row waits for it",
        SETS,
        "awake(), engine.hardly_waiting()",
        "awake()",
        (f"{T_TWO}::test_a_set_waits_for_a_locked_row_shorter_than_deadlocks_are_looked_for",),
    ),
    Bug(
        "a set that meets a locked row breaks the purge off",
        EXECUTE,
        "if engine.has_every_lock or not engine.is_lock_timeout(error):",
        "if True:",
        (f"{T_TWO}::test_a_claim_waits_for_nobody",),
    ),
    Bug(
        "a claim locks no row, row by row",
        PLAN,
        "        rows = database(alias).skipping_locked(rows)\n",
        "        pass\n",
        (f"{T_TWO}::test_a_claim_waits_for_nobody",),
    ),
    Bug(
        "a reaper waits for who holds the run",
        PURGE,
        "locked: Any = runs.lock_exclusively(run) if wait else runs.lock_or_skip(run)",
        "locked: Any = runs.lock_exclusively(run)",
        (f"{T_TWO}::test_a_purge_that_does_not_wait_does_not_wait_for_the_run",),
    ),
    Bug(
        "a renewal that came first is not seen: the lease is the one that was listed",
        PURGE,
        "if only_expired and locked.expires_at > locked.now:",
        "if only_expired and run.expires_at > locked.now:",
        (f"{T_CONCURRENCY}::TestAReaper::test_leaves_a_run_alone_that_was_renewed_meanwhile",),
    ),
    Bug(
        "creators may join a run that is closing",
        RUNS,
        "    if run.state != TestRun.State.OPEN:\n        raise RunClosed",
        "    if run.state == TestRun.State.CLOSED:\n        raise RunClosed",
        (f"{T_CONCURRENCY}::test_nobody_joins_once_closing_is_committed",),
    ),
    Bug(
        "creators may join a run past its end",
        RUNS,
        "    if run.expires_at <= run.now:",
        "    if run.latest_end <= run.now:",
        (f"{T_RUNS}::TestHolding",),
    ),
    Bug(
        "one owner's run answers to another",
        RUNS,
        "TestRun.objects.using(ledger_alias()).filter(owner=owner).annotate(now=Now())",
        "TestRun.objects.using(ledger_alias()).annotate(now=Now())",
        (f"{T_RUNS}::TestFinding",),
    ),
    Bug(
        "what joined while the run closed is not in the plan",
        PURGE,
        "        # Until it closed the run could grow.\n        seen = outline(run)\n",
        "",
        (f"{T_TWO}::test_what_a_creator_in_flight_made_of_another_kind_goes_too",),
    ),
    # --- who holds whom ---
    Bug(
        "nobody looks who holds a row, set by set",
        SETS,
        "if pointer.anyone_holding(ledger_alias(), self.model, self.entries, which):",
        "if pointer.target is None:",
        (f"{T_HELD}::test_stops_the_removal_of_that_part_and_is_not_changed",),
    ),
    Bug(
        "nobody looks who holds a row, row by row",
        EXECUTE,
        "in holders(found, self.alias, self._remains).items()",
        "in {}.items()",
        (f"{T_HELD}::test_stops_the_removal_of_that_part_and_is_not_changed",),
    ),
    Bug(
        "nobody looks who holds a row of a circle, set by set",
        EXECUTE,
        "            chunk.refuse_holders(foreign)\n",
        "",
        (f"{T_GAPS}::test_a_generic_pointer_holds_a_row_of_a_circle_too",),
    ),
    Bug(
        "no row holds a row of its own circle",
        EXECUTE,
        "return ~Q(pk__in=list(found.ours)) if found and found.ours else Q()",
        "return Q(pk__in=()) if found and found.ours else Q()",
        (f"{T_HELD}::test_holds_a_chain_of_its_own_kind",),
    ),
    Bug(
        "a plan says nothing of who holds a row",
        PLAN,
        "blocked = holders(found, ledger_alias(), self._stays)",
        "blocked: Any = {}",
        (f"{T_PLAN}::test_it_says_what_the_purge_then_does",),
    ),
    Bug(
        "generic pointers are forgotten",
        GRAPH,
        "        *generic,\n",
        "",
        (f"{T_HELD}::test_stops_the_removal_of_that_part_and_is_not_changed",),
    ),
    Bug(
        "tables without a model are forgotten",
        GRAPH,
        "        *_tables().unmodelled.get(target._meta.db_table, ()),\n",
        "",
        (f"{T_GRAPH}::TestATableWithoutAModel",),
    ),
    Bug(
        "tables are looked for once in a process",
        GRAPH,
        "    _tables.cache_clear()\n",
        "    return\n",
        (f"{T_GRAPH}::TestATableWithoutAModel::test_is_found_where_it_was_made_after_the_first_purge",),
    ),
    Bug(
        "foreign keys with a rule of their own are overlooked in the catalogue",
        "databases/references.py",
        "WHERE c.contype = 'f' AND",
        "WHERE c.contype = 'f' AND c.confdeltype = 'a' AND",
        (f"{T_GRAPH}::TestATableWithoutAModel",),
    ),
    Bug(
        "a cascade of the database's own counts as its refusal",
        "databases/references.py",
        "c.confdeltype IN ('a', 'r') AND",
        "c.confdeltype IN ('a', 'r', 'c', 'n', 'd') AND",
        (f"{T_GRAPH}::TestATableWithoutAModel",),
    ),
    Bug(
        "what is held goes before its holders",
        GRAPH,
        "return _strongly_connected(remaining, holders)",
        "return _strongly_connected(remaining, holders)[::-1]",
        (f"{T_PLAN}::test_holders_come_before_what_they_hold",),
    ),
    Bug(
        "only the first of many keys is asked for",
        OWN_WAY,
        "return all_rows(model, alias).filter(pk__in=keys)._raw_delete(alias) if keys else 0",
        "return all_rows(model, alias).filter(pk__in=keys[:1])._raw_delete(alias) if keys else 0",
        (f"{T_EXECUTE}::TestEverythingThatTheLedgerProvesGoes::test_and_the_receipt_counts_it_by_type",),
    ),
    # --- is it the row that we made? ---
    Bug(
        "fingerprints are not compared",
        "fingerprints.py",
        "return all(everything) and sum(some) * 2 >= len(some)",
        "return True",
        (f"{T_EXECUTE}::TestARecycledKey",),
    ),
    Bug(
        "one text of many is proof enough",
        "fingerprints.py",
        "sum(some) * 2 >= len(some)",
        "(any(some) or not some)",
        ("test_fingerprints.py::TestTelling",),
    ),
    Bug(
        "a stranger under our key is taken for ours",
        PLAN,
        "            found.strangers.append(entry)\n    return found",
        "            found.ours[key] = entry\n    return found",
        (f"{T_EXECUTE}::TestARecycledKey",),
    ),
    Bug(
        "an entry from before the guards is proof, set by set",
        PLAN,
        "return since is not None and oldest >= since",
        "return since is not None",
        (f"{T_GAPS}::test_an_entry_from_before_the_guards_proves_nothing_by_itself",),
    ),
    Bug(
        "an entry from before the guards is proof, row by row",
        PLAN,
        "(proven_since is not None and entry.created_at >= proven_since)",
        "proven_since is not None",
        (f"{T_GAPS}::test_an_entry_from_before_the_guards_proves_nothing_by_itself",),
    ),
    Bug(
        "guards that were renewed are as old as the first ones",
        POSTGRESQL,
        '            " installed_at = excluded.installed_at"\n',
        '            f" installed_at = {RECORDS}.installed_at"\n',
        (f"{T_GUARDS}::TestInstalling",),
    ),
    Bug(
        "an entry that was closed still proves",
        MODELS,
        "        TestEntity.objects.standing()\n        .of_model(model)\n",
        "        TestEntity.objects.all()\n        .of_model(model)\n",
        ("test_models.py", f"{T_ENTITIES}::TestFinding"),
    ),
    Bug(
        "the entry of another model's row proves",
        MODELS,
        "        TestEntity.objects.standing()\n        .of_model(model)\n",
        "        TestEntity.objects.standing()\n",
        (f"{T_GAPS}::test_a_real_row_is_not_taken_for_ours_for_having_the_key_of_another_models_row",),
    ),
    Bug(
        "what is quarantined is not looked at again",
        MODELS,
        "return self.filter(tombstone=0)",
        'return self.filter(state="live")',
        (f"{T_HELD}::test_lets_the_part_go_once_it_is_away",),
    ),
    Bug(
        "rows of every run go",
        PLAN,
        'standing().filter(run=run).order_by("pk")\n    return',
        'standing().order_by("pk")\n    return',
        (f"{T_EXECUTE}::TestEverythingThatTheLedgerProvesGoes::test_rows_of_another_run_stay",),
    ),
    Bug(
        "a client's list is trusted",
        PURGE,
        "            run=run, type=name, key_text__in=wanted\n",
        "            type=name, key_text__in=wanted\n",
        (f"{T_CLEANUP}::TestListedRows",),
    ),
    Bug(
        "what hangs on a listed row is forgotten",
        PURGE,
        "        fresh = found - chosen\n",
        "        fresh = set()\n",
        (f"{T_CLEANUP}::TestListedRows",),
    ),
    # --- how rows go ---
    Bug(
        "the ORM deletes, and lets go of what points there",
        OWN_WAY,
        "return all_rows(model, alias).filter(pk__in=keys)._raw_delete(alias) if keys else 0",
        "return all_rows(model, alias).filter(pk__in=keys).delete()[0] if keys else 0",
        (f"{T_GAPS}::test_no_row_of_a_derived_table_is_let_go_of_by_the_orm",),
    ),
    Bug(
        "the ORM deletes, and lets go of what points there, set by set",
        SETS,
        "rows._raw_delete(ledger_alias())",
        "rows.delete()[0]",
        (f"{T_GAPS}::test_no_row_of_a_derived_table_is_let_go_of_by_the_orm",),
    ),
    Bug(
        "the guards sleep while a purge deletes",
        EXECUTE,
        "return database(ledger_alias()).purging(self.run.pk) if self.proofs.awake else nullcontext()",
        "return nullcontext()",
        (f"{T_EXECUTE}::TestEverythingThatTheLedgerProvesGoes::test_of_every_kind_of_model",),
    ),
    Bug(
        "nobody looks whether the guards have closed the entries of a set",
        SETS,
        "            self._see_closed()\n        elif",
        "            pass\n        elif",
        (f"{T_GAPS}::test_guards_that_are_taken_down_in_the_middle_are_noticed",),
    ),
    Bug(
        "nobody looks whether the guards have closed the entries of a part of a set",
        SETS,
        "elif self.entries.count() != self.count - deleted:",
        "elif False:",
        (f"{T_CONCURRENCY}::test_guards_that_are_taken_down_under_a_part_of_a_set_are_noticed",),
    ),
    Bug(
        "nobody looks whether the guards have closed the entries of a circle",
        SETS,
        "            self._delete_at_once(self.rows)\n        self._see_closed()\n",
        "            self._delete_at_once(self.rows)\n",
        (f"{T_GAPS}::test_guards_that_are_taken_down_in_the_middle_are_noticed",),
    ),
    Bug(
        "a foreign key of two columns counts as a refusal",
        REFERENCES,
        " AND cardinality(c.conkey) = 1",
        "",
        (f"{T_GAPS}::test_half_a_key_of_two_columns_holds_a_row_too",),
    ),
    Bug(
        "a foreign key that is asleep counts as a refusal",
        REFERENCES,
        "AND current_setting('session_replication_role') <> 'replica'",
        "AND true",
        (f"{T_GRAPH}::test_a_foreign_key_that_is_asleep_holds_all_the_same",),
    ),
    Bug(
        "a lock on entries takes the run along",
        PLAN,
        'standing().filter(run=run).order_by("pk")',
        "standing().filter(run=run)",
        (f"{T_CONCURRENCY}::test_two_purges_of_one_run_hold_it_at_a_time",),
    ),
    Bug(
        "part of a circle that somebody has is a reason to hold the rest",
        EXECUTE,
        "if self.group.circular and any(found.busy for found in self.found.values()):",
        "if False:",
        (f"{T_CONCURRENCY}::test_part_of_a_circle_that_somebody_has_is_no_reason_to_hold_the_rest",),
    ),
    Bug(
        "receivers are not told",
        OWN_WAY,
        "return pre_delete.has_listeners(model) or post_delete.has_listeners(model)",
        "return False",
        (f"{T_OWN_WAY}::TestReceivers",),
    ),
    Bug(
        "a queryset's own delete() is passed by",
        OWN_WAY,
        "return model.delete is not models.Model.delete or _queryset_deletes(model)",
        "return model.delete is not models.Model.delete",
        (f"{T_OWN_WAY}::test_a_queryset_with_a_delete_of_its_own_is_asked",),
    ),
    Bug(
        "a delete() may take a real row along",
        OWN_WAY,
        "        if entry is None or entry.pk in self.held:\n            raise TouchedForeignRow(model)",
        "        if entry is None or entry.pk in self.held:\n            return None",
        (f"{T_EXECUTE}::TestModelsWithAMindOfTheirOwn",),
    ),
    Bug(
        "a delete() may take along a row that a real one holds",
        OWN_WAY,
        "if held or not along.ours:",
        "if not along.ours:",
        (f"{T_GAPS}::test_a_delete_that_takes_along_a_row_which_a_real_one_holds_is_undone",),
    ),
    Bug(
        "what a receiver writes stays",
        OWN_WAY,
        "        if written.rows:\n",
        "        if not written:\n",
        (f"{T_EXECUTE}::TestModelsWithAMindOfTheirOwn",),
    ),
    Bug(
        "a row that is only marked counts as removed",
        OWN_WAY,
        "            delete_rows(model, [key], self.alias)  # where that only marks the row\n",
        "",
        (f"{T_EXECUTE}::TestModelsWithAMindOfTheirOwn",),
    ),
    Bug(
        "a batch that the database broke off is not done again",
        EXECUTE,
        "_ATTEMPTS = 5",
        "_ATTEMPTS = 1",
        (f"{T_GAPS}::test_a_batch_that_the_database_broke_off_is_done_again",),
    ),
    Bug(
        "a deadlock's victim is taken for a failure",
        POSTGRESQL,
        "return _state(error) in (_DEADLOCK, _SERIALIZATION)",
        "return False",
        ("databases/test_victims.py",),
    ),
    Bug(
        "broken references are left for the commit to find",
        POSTGRESQL,
        '        self.execute("SET CONSTRAINTS ALL IMMEDIATE")\n',
        "",
        (f"{T_LOCKS}::test_a_broken_reference_surfaces_before_the_commit",),
    ),
    # --- the books ---
    Bug(
        "entries are closed in a transaction of their own",
        EXECUTE,
        "        batch.write_down()\n",
        "        transaction.on_commit(batch.write_down, using=ledger_alias())\n",
        (f"{T_TWO}::test_rows_and_their_entries_go_in_one_transaction",),
    ),
    Bug(
        "entries are closed in a transaction of their own, before the rows go",
        EXECUTE,
        "        with self._awake():\n            batch.delete()\n        batch.write_down()\n",
        "        batch.write_down()\n        connections[ledger_alias()].connection.commit()\n"
        "        with self._awake():\n            batch.delete()\n",
        (f"{T_TWO}::test_rows_and_their_entries_go_in_one_transaction",),
    ),
    Bug(
        "the entry of a row that somebody else removed is not closed",
        EXECUTE,
        "{entry.pk for found in self.found.values() for entry in found.gone}",
        "()",
        (f"{T_EXECUTE}::TestRowsRemovedBySomebodyElse",),
    ),
    Bug(
        "the entries of what went along are not closed",
        EXECUTE,
        "standing(self.run, removed | self.went_along)",
        "standing(self.run, removed)",
        (f"{T_GAPS}::test_what_a_delete_takes_along_is_removed_and_not_gone",),
    ),
    Bug(
        "a closed entry has no tombstone",
        MODELS,
        'state=state, tombstone=F("pk"), removed_at=Now()',
        "state=state, removed_at=Now()",
        (f"{T_EXECUTE}::TestEverythingThatTheLedgerProvesGoes::test_of_every_kind_of_model",),
    ),
    Bug(
        "what is held is not written down",
        EXECUTE,
        "    for each in held.values():\n",
        "    for each in ():\n",
        (f"{T_HELD}::test_stops_the_removal_of_that_part_and_is_not_changed",),
    ),
    Bug(
        "an entry without a model is passed by in silence",
        EXECUTE,
        "        if self.seen.lost:\n",
        "        if not self.seen:\n",
        (f"{T_EXECUTE}::TestTheLedger::test_an_entry_whose_model_is_gone_is_quarantined",),
    ),
    Bug(
        "a row that could not be locked counts as gone",
        PLAN,
        "found.busy.append(entry)",
        "found.gone.append(entry)",
        (f"{T_TWO}::test_a_purge_that_does_not_wait_neither_waits_for_a_row_nor_gives_it_up",),
    ),
    Bug(
        "what was passed by is not looked at again",
        EXECUTE,
        "(left := self._left(group)):",
        "(left := self._left(group)[:0]):",
        (f"{T_TWO}::test_a_claim_waits_for_nobody",),
    ),
    Bug(
        "a row in use is left without a word",
        EXECUTE,
        "                self._quarantine(left, IN_USE)\n",
        "",
        (f"{T_TWO}::test_a_claim_waits_for_nobody",),
    ),
    Bug(
        "rows that another purge is at are given up without a word",
        EXECUTE,
        "                raise Busy\n            elif",
        "                return\n            elif",
        (f"{T_TWO}::test_a_purge_that_does_not_wait_neither_waits_for_a_row_nor_gives_it_up",),
    ),
    Bug(
        "a run with rows left is closed",
        PURGE,
        "        if not remaining:\n",
        "        if remaining >= 0:\n",
        (f"{T_HELD}::test_stops_the_removal_of_that_part_and_is_not_changed",),
    ),
    Bug(
        "each receipt tells of everything again",
        PLAN,
        '        found.removed.subtract(earlier["removed"])\n',
        "",
        (f"{T_GAPS}::test_each_receipt_tells_what_its_own_purge_did",),
    ),
    Bug(
        "each receipt tells again of what others removed",
        PLAN,
        '        found.gone.subtract(earlier["alreadyGone"])\n',
        "",
        (f"{T_GAPS}::test_each_receipt_tells_what_its_own_purge_did",),
    ),
    # --- the guards in the database ---
    Bug(
        "a purge may delete another run's rows",
        POSTGRESQL,
        "WHERE closed.id = {entries_gone} AND closed.run_id + 0 = run::bigint;",
        "WHERE closed.id = {entries_gone};",
        (f"{T_DATABASE}::TestAPurge::test_may_not_delete_another_runs_row",),
    ),
    Bug(
        "a purge may delete real rows",
        POSTGRESQL,
        "IF ended <> asked THEN",
        "IF ended > asked THEN",
        (f"{T_DATABASE}::TestAPurge::test_may_not_delete_a_real_row",),
    ),
    Bug(
        "a purge may change real rows",
        POSTGRESQL,
        "ELSIF run <> '' AND {changed}OLD *<> NEW AND NOT EXISTS (",
        "ELSIF run <> '' AND false AND NOT EXISTS (",
        (f"{T_DATABASE}::TestAPurge::test_may_not_change_a_real_row",),
    ),
    Bug(
        "a query that is compiled once keeps the values of its first call",
        COMPILED,
        "rows = compiled.all()",
        "rows = compiled",
        (f"{T_COMPILED}::test_remembers_nobodys_values",),
    ),
    Bug(
        "a run whose statement is compiled once is not locked",
        BASE,
        "compile_once(self._sharing(rows, suffix))",
        "compile_once(rows)",
        (f"{T_COMPILED}::TestHoldingARun::test_locks_it_as_ever",),
    ),
    Bug(
        "a key that changes is not noticed",
        POSTGRESQL,
        "WHEN ({key_changed})",
        "WHEN (false)",
        (f"{T_DATABASE}::TestOrdinaryTraffic::test_that_gives_a_row_another_key_closes_its_entry",),
    ),
    Bug(
        "TRUNCATE is not noticed",
        POSTGRESQL,
        '"AFTER TRUNCATE ON {on} FOR EACH STATEMENT {call}()"',
        '"AFTER TRUNCATE ON {on} FOR EACH STATEMENT WHEN (false) {call}()"',
        (f"{T_DATABASE}::TestOrdinaryTraffic::test_that_truncates_closes_every_entry_of_the_table",),
    ),
    Bug(
        "a replica's role passes the guards by",
        POSTGRESQL,
        "ENABLE ALWAYS TRIGGER {PREFIX}",
        "ENABLE TRIGGER {PREFIX}",
        (f"{T_DATABASE}::TestAPurge::test_is_guarded_under_the_role_of_a_replica_too",),
    ),
    Bug(
        "`purging` does not wake the guards",
        POSTGRESQL,
        "with self._set_locally(_SETTING, str(run_id)):",
        'with self._set_locally(_SETTING, ""):',
        (f"{T_DATABASE}::TestAPurge::test_may_not_delete_a_real_row",),
    ),
    Bug(
        "guards that are broken are relied on",
        GUARDS,
        "    if broken:\n",
        "    if not records:\n",
        (f"{T_GUARDS}::TestInstalling",),
    ),
    Bug(
        "guards that somebody has rewritten are relied on",
        GUARDS,
        "return State.AWAKE if record.definition.endswith(guard.digest) else State.CHANGED",
        "return State.AWAKE",
        (f"{T_GUARDS}::TestInstalling",),
    ),
    # --- how much may go ---
    Bug(
        "as many rows as may go are too many",
        LIMITS,
        "if seen.total > most:",
        "if seen.total >= most:",
        (f"{T_LIMITS}::TestMoreRowsThanMayGo",),
    ),
    Bug(
        "any number of rows may go",
        LIMITS,
        "        reason = _too_much(seen)\n",
        '        reason = ""\n',
        (f"{T_LIMITS}::TestMoreRowsThanMayGo",),
    ),
    Bug(
        "any share of a table may go",
        LIMITS,
        "    if share >= 1:\n",
        "    if share >= 0:\n",
        (f"{T_LIMITS}::TestMoreOfATableThanMayGo",),
    ),
    Bug(
        "a client's list may be of any length",
        PURGE,
        "    limits.refuse_too_many(run, asked)\n",
        "",
        (f"{T_LIMITS}::TestMoreRowsThanMayGo::test_listed_by_a_client_halt_too",),
    ),
    Bug(
        "any digest confirms a plan",
        LIMITS,
        "elif expect != (digest := make_plan(run).digest):",
        'elif expect == "" != (digest := make_plan(run).digest):',
        (f"{T_LIMITS}::TestMoreRowsThanMayGo::test_stay_with_any_other",),
    ),
    Bug(
        "a plan that was confirmed may grow while the run closes",
        PURGE,
        "        seen = outline(run)\n        limits.confirm(run, seen, expect)\n    size",
        "        seen = outline(run)\n    size",
        (
            f"{T_LIMITS}::test_a_run_that_grew_while_it_closed_is_not_the_one_that_was_confirmed",
            f"{T_LIMITS}::test_a_run_that_grew_over_the_limit_while_it_closed_halts",
        ),
    ),
    Bug(
        "a plan's digest does not tell that a row went",
        PLAN,
        'b"?" if entry.pk in gone else b"-"',
        'b"-"',
        (f"{T_PLAN}::test_a_row_that_went_changes_the_digest",),
    ),
    # --- when it fails, and when it may not ---
    Bug(
        "closing the gate stops the purge",
        PURGE,
        "    look_at_tables()\n    proven = proofs()\n    seen = outline(run)\n",
        "    look_at_tables()\n    proven = proofs()\n    seen = outline(run)\n    if not settings.ENABLED:\n"
        '        raise PurgeHalted("Test data is switched off.")\n',
        (f"{T_REAPER}::TestWhatItTakes::test_with_the_gate_closed_and_keys_required",),
    ),
    Bug(
        "a failure is swallowed",
        PURGE,
        '{error}", error=error)\n        raise\n',
        '{error}", error=error)\n        return None\n',
        (f"{T_REAPER}::TestFailure::test_of_one_run_keeps_no_other_waiting",),
    ),
    Bug(
        "a purge that left rows is no failure",
        PURGE,
        '        failures.failed(run, outcome.message, got_nowhere=not outcome.receipt["removed"])\n',
        "        pass\n",
        (f"{T_REAPER}::TestFailure",),
    ),
    Bug(
        "failures are not counted",
        FAILURES,
        'purge_failures=F("purge_failures") + 1',
        'purge_failures=F("purge_failures")',
        (f"{T_REAPER}::TestFailure",),
    ),
    Bug(
        "a failure does not put the run off",
        FAILURES,
        "next_purge_at=_next_try()",
        "next_purge_at=None",
        (f"{T_REAPER}::TestFailure",),
    ),
    Bug(
        "a success does not end the failures",
        PURGE,
        "        failures.succeeded(run)\n",
        "        pass\n",
        (f"{T_REAPER}::TestFailure::test_is_over_with_the_first_success",),
    ),
    Bug(
        "a run that is put off is tried at once",
        REAPER,
        "due = expired.filter(Q(next_purge_at=None) | Q(next_purge_at__lte=Now()))",
        "due = expired.all()",
        (f"{T_REAPER}::TestFailure::test_is_not_tried_again_before_its_time_but_still_told",),
    ),
    Bug(
        "one poisoned run stops the reaper",
        REAPER,
        "except Exception as error:  # noqa: BLE001 - purge_run has put",
        "except ArithmeticError as error:  # noqa: BLE001 - purge_run has put",
        (f"{T_REAPER}::TestFailure::test_of_one_run_keeps_no_other_waiting",),
    ),
    Bug(
        "a run that ends the process that purges it comes first again",
        REAPER,
        "        failures.begun(run)\n",
        "",
        (f"{T_REAPER}::TestFailure::test_that_ends_the_process_keeps_no_other_waiting_after_that",),
    ),
    Bug(
        "the reaper takes a run in use",
        REAPER,
        "                only_expired=True,\n",
        "",
        (f"{T_REAPER}::TestManyAtOnce::test_a_run_that_was_renewed_after_it_was_listed_is_left_alone",),
    ),
    Bug(
        "every run that is not closed counts as expired",
        MODELS,
        "return self.unfinished().filter(expires_at__lte=Now())",
        "return self.unfinished()",
        ("test_models.py::TestRuns",),
    ),
    # --- making: everything is entered ---
    Bug(
        "entries are written after the rows have committed",
        ENTITIES,
        "        ledger.bulk_create([*entries, *outside])\n",
        "        everything = [*entries, *outside]\n"
        "        transaction.on_commit(lambda: ledger.bulk_create(everything), using=self._alias)\n",
        (f"{T_ENTITIES}::TestAllOrNothing::test_a_failure_to_enter_takes_the_rows_back",),
    ),
    Bug(
        "a real row may be given out as the run's",
        ENTITIES,
        "            rows = rows.filter(Exists(entries_of_outer_row(model, run)))\n",
        "            pass\n",
        (f"{T_ENTITIES}::TestFinding",),
    ),
    Bug(
        "a real row that a factory found is given out",
        ENTITIES,
        "                _refuse_found(self._run, entity_type, instance)\n",
        "                pass\n",
        (f"{T_ENTITIES}::TestTheLedger",),
    ),
    Bug(
        "an upsert may change a real row",
        CAPTURE,
        "if query.on_conflict is OnConflict.UPDATE:",
        "if query.on_conflict is None:",
        (f"{T_CAPTURE}::test_an_upsert_is_refused",),
    ),
    Bug(
        "raw SQL makes rows that nobody enters",
        CAPTURE,
        "        if not self._compiling:\n",
        "        if self._compiling is None:\n",
        (f"{T_CAPTURE}::TestRawSql",),
    ),
    Bug(
        "a row that an INSERT ignored is entered as ours",
        CAPTURE,
        "            query.objs = _without_existing(model, alias, query.objs)\n"
        "            query.on_conflict = None\n",
        "",
        (f"{T_CAPTURE}::TestIgnoredConflicts",),
    ),
    Bug(
        "rows that were rolled back to a savepoint are entered",
        CAPTURE,
        "        self.rows[since:] = [row for row in self.rows[since:] if row.database != alias]\n",
        "",
        (f"{T_CAPTURE}::TestSavepoints",),
    ),
    # --- outside the database ---
    Bug(
        "the outside is asked before the entry is committed",
        ENTITIES,
        "        self.outside.append(thing)\n",
        "        self.outside.append(thing)\n        thing.handler.create(thing.key, thing.fields)\n",
        (f"{T_EXTERNALS}::TestMaking::test_its_entry_is_committed_before_the_outside_is_asked",),
    ),
    Bug(
        "what is being made is removed, and made afterwards",
        EXTERNALS,
        "        if _is_being_made(entry, handler):\n",
        "        if handler is None:\n",
        (f"{T_EXTERNALS}::TestTheRace::test_a_purge_leaves_alone_what_is_being_made",),
    ),
    Bug(
        "what was made after a purge is forgotten",
        EXTERNALS,
        "        _take_back(run, thing, sleep)\n",
        "",
        (f"{T_EXTERNALS}::TestTheRace::test_what_comes_after_its_entry_was_closed_is_removed_at_once",),
    ),
    Bug(
        "a failure outside counts as removed",
        EXTERNALS,
        "            return _FAILED\n",
        "            return None\n",
        (f"{T_EXTERNALS}::TestRemoving::test_what_fails_stays_as_residue_until_the_server_recovers",),
    ),
    Bug(
        "the outside is asked once and no more",
        EXTERNALS,
        "attempts = max(attempts or handler.attempts, 1)",
        "attempts = 1",
        (f"{T_EXTERNALS}::TestMaking::test_answers_500_twice_and_is_asked_again",),
    ),
    Bug(
        "the run is held while the outside is asked",
        EXTERNALS,
        "            reason = removal.reason_to_keep(entry, holders.get(entry.pk))\n",
        "            with transaction.atomic(using=alias):\n"
        "                runs.lock_exclusively(run)\n"
        "                reason = removal.reason_to_keep(entry, holders.get(entry.pk))\n",
        (f"{T_EXTERNALS}::TestRemoving::test_holds_nothing_while_the_outside_is_asked",),
    ),
    Bug(
        "a file goes though a real row names it",
        EXTERNALS,
        "        holders = _holders([each for each in batch if each.model == _PREFIX + FILE])\n",
        "        holders: dict[int, Counter[str]] = {}\n",
        (f"{T_FILES}::TestRemoving::test_stays_while_a_real_row_names_it",),
    ),
    Bug(
        "a call that fails takes a real row's file with it",
        EXTERNALS,
        "                if not _rows_naming(each.field, [each.name]):\n",
        "                if each.name:\n",
        (f"{T_FILES}::TestACallThatFails::test_keeps_a_file_that_a_real_row_names",),
    ),
    Bug(
        "files are not entered",
        CAPTURE,
        "if each.name and each._committed]",
        "if not each]",
        (f"{T_FILES}::TestEntering",),
    ),
    # --- what the product writes under a run ---
    Bug(
        "a statement of a run does not say so",
        STATEMENTS,
        "    if current_run() is None and not _all_rows.get():\n",
        "    if current_run() is not None or not _all_rows.get():\n",
        (T_STATEMENTS,),
    ),
    Bug(
        "the database captures for a run that is closing",
        POSTGRESQL,
        "WHERE open.id = test AND open.state = 'open' FOR SHARE",
        "WHERE open.id = test FOR SHARE",
        (f"{T_STATEMENTS}::TestWhatTheProductWrites",),
    ),
    Bug(
        "a run that is about to close does not wait for what is captured",
        POSTGRESQL,
        "AND open.state = 'open' FOR SHARE;",
        "AND open.state = 'open';",
        (f"{T_STATEMENTS}::TestTwoAtOnce",),
    ),
    Bug(
        "a transaction that has closed its run goes on making rows in it",
        "operations/purge/purge.py",
        "            database(runs.ledger_alias()).let_go_of_run()\n",
        "",
        (f"{T_STATEMENTS}::TestWhatTheProductWrites",),
    ),
    Bug(
        "the run counts as held by the next transaction",
        POSTGRESQL,
        "PERFORM set_config('{held}', test::text, true);",
        "PERFORM set_config('{held}', test::text, false);",
        (f"{T_STATEMENTS}::TestTwoAtOnce",),
    ),
    Bug(
        "raw SQL makes rows without their mark",
        POSTGRESQL,
        'marking=self._marking(table) if table.mark else "",',
        'marking="",',
        (f"{T_STATEMENTS}::TestAMarkedModel",),
    ),
    Bug(
        "COPY is not captured",
        STATEMENTS,
        "            if hasattr(cursor, name) and (current_run() is not None or _all_rows.get()):\n",
        "            if hasattr(cursor, name) and _all_rows.get():\n",
        (f"{T_STATEMENTS}::TestWhatTheProductWrites",),
    ),
    Bug(
        "the fence lets a run delete real rows",
        POSTGRESQL,
        "IF run = '' AND (TG_OP IN ('DELETE', 'TRUNCATE') OR awake",
        "IF run = '' AND (awake",
        (f"{T_STATEMENTS}::TestTheFence",),
    ),
    Bug(
        "the fence lets a run change another run's rows",
        POSTGRESQL,
        "SELECT count(*) INTO asked WHERE {fenced}OLD *<> NEW AND test IS DISTINCT FROM (\n"
        "        SELECT entry.run_id FROM {ledger} AS entry WHERE {entry_of_old});\n",
        "SELECT count(*) INTO asked WHERE {fenced}OLD *<> NEW AND NOT EXISTS (\n"
        "        SELECT 1 FROM {ledger} AS entry WHERE {entry_of_old});\n",
        (f"{T_STATEMENTS}::TestTheFence",),
    ),
    Bug(
        "the fence is open to operations",
        ENTITIES,
        "its = CurrentRun(run.pk, run.test_id, fenced=True)",
        "its = CurrentRun(run.pk, run.test_id)",
        (f"{T_STATEMENTS}::TestTheFence",),
    ),
    Bug(
        "an operation may not change what it has just made",
        ENTITIES,
        "            recorder.enter = self.enter\n",
        "            pass\n",
        (f"{T_STATEMENTS}::TestTheFence",),
    ),
    Bug(
        "what is rolled back counts as entered",
        CAPTURE,
        "        self.entered = min(self.entered, entered)\n",
        "",
        (f"{T_STATEMENTS}::TestTheFence",),
    ),
    Bug(
        "what an operation leaves for the commit to do is not captured",
        HOOKS,
        "            with use_run(its):\n",
        "            with use_run(run):\n",
        (T_STATEMENTS,),
    ),
    Bug(
        "what is captured counts among what the run asked for",
        RUNS,
        'numbered = TestEntity.objects.filter(run=OuterRef("pk"), ordinal__isnull=False)',
        'numbered = TestEntity.objects.filter(run=OuterRef("pk"))',
        (f"{T_STATEMENTS}::TestWhatTheProductWrites",),
    ),
    Bug(
        "an entry without a fingerprint matches any row",
        FINGERPRINTS,
        "    if not fingerprint:\n        return False",
        "    if not fingerprint:\n        return True",
        (T_FINGERPRINTS, T_STATEMENTS),
    ),
    # --- the audit ---
    Bug(
        "an audit counts the entries that are left as all that were made",
        AUDIT,
        'created=Coalesce(Max("entities__ordinal"), 0) + Count("entities", filter=captured),',
        'created=Count("entities"),',
        (f"{T_AUDIT}::TestTheBooks::test_an_entry_that_was_deleted_shows",),
    ),
    Bug(
        "a closed run with standing entries balances",
        AUDIT,
        '    if row["state"] == TestRun.State.CLOSED and row["standing"]:\n',
        '    if row["state"] == TestRun.State.CLOSED and not row["standing"] and row["outside"]:\n',
        (f"{T_AUDIT}::TestTheBooks::test_a_closed_run_with_a_standing_entry_shows",),
    ),
    Bug(
        "a row without a mark may be adopted",
        ADOPTION,
        "    if not marks:\n",
        "    if marks is None:\n",
        (f"{T_ADOPTION}::TestWhatIsNotAdopted::test_a_row_without_a_mark",),
    ),
    Bug(
        "another row than the one that was shown may be adopted",
        ADOPTION,
        "    if now.fingerprint != shown.fingerprint:\n",
        "    if not now.fingerprint:\n",
        (f"{T_ADOPTION}::TestWhatIsNotAdopted::test_another_row_under_the_key_that_was_shown",),
    ),
    # --- who sees a test row ---
    Bug(
        "a run sees every run's marked rows",
        VISIBILITY,
        'return f"({column} IS NULL OR {column} = %s)", (*params, *params, run.pk)',
        'return f"({column} IS NULL OR {column} <> %s)", (*params, *params, 0)',
        (T_VISIBILITY,),
    ),
    Bug(
        "a run sees every run's rows that the ledger knows of",
        VISIBILITY,
        """entries += f" AND {entry}.{quote('run_id')} <> %s\"""",
        """entries += f" AND {entry}.{quote('run_id')} = -%s\"""",
        (T_VISIBILITY,),
    ),
    Bug(
        "a closed entry hides the row that has its key now",
        VISIBILITY,
        """WHERE {entry}.{quote('tombstone')} = 0\"""",
        """WHERE {entry}.{quote('tombstone')} >= 0\"""",
        (T_VISIBILITY,),
    ),
    Bug(
        "an entry hides a row of another model",
        VISIBILITY,
        """ AND {entry}.{quote('model')} = %s AND """,
        """ AND {entry}.{quote('model')} >= %s AND """,
        (T_VISIBILITY,),
    ),
    Bug(
        "a manager of ours hides nothing",
        VISIBILITY,
        "return hide_test_data(super().get_queryset())",
        "return super().get_queryset()",
        (T_VISIBILITY,),
    ),
    Bug(
        "a key that cannot be compared is shown",
        VISIBILITY,
        "    if reason is not None:\n        raise ConfigurationError(reason)\n",
        "",
        (T_VISIBILITY,),
    ),
    Bug(
        "a row made in a run does not carry its mark",
        VISIBILITY,
        "            setattr(model_instance, self.attname, run.pk)\n",
        "            pass\n",
        (T_VISIBILITY,),
    ),
    Bug(
        "a model's own deletion does not see the hidden row",
        OWN_WAY,
        "            until_commit(CurrentRun(self.run.pk, self.run.test_id), removing=True),\n",
        "",
        (T_VISIBILITY,),
    ),
    Bug(
        "a client may set the mark",
        "access/privileges.py",
        '        "test_run_id",\n',
        "",
        (T_VISIBILITY,),
    ),
    # --- tokens of CI jobs ---
    Bug(
        "an issuer's redirect is followed",
        ISSUERS,
        "return None  # so the 3xx is an error",
        "return super().redirect_request(*args)",
        (f"{T_ISSUERS}::TestKeysFromElsewhere::test_are_not_fetched_where_the_issuer_sends_us",),
    ),
    Bug(
        "an issuer's keys are taken from anywhere",
        ISSUERS,
        " or _origin(urlsplit(uri)) != _origin(urlsplit(self.issuer))",
        "",
        (f"{T_ISSUERS}::TestKeysFromElsewhere::test_are_not_fetched_from_another_origin_than_the_issuers",),
    ),
    Bug(
        "every unknown key makes us ask the issuer",
        ISSUERS,
        "is not None else REFETCH_SECONDS",
        "is not None else 0.0",
        (f"{T_ISSUERS}::TestAnUnknownKey::test_is_looked_for_once_a_minute_however_often_it_is_sent",),
    ),
    Bug(
        "a shared secret signs a token",
        OIDC,
        '"EdDSA")',
        '"EdDSA", "HS256")',
        (f"{T_OIDC}::TestAForgedToken::test_with_a_shared_secret_that_the_issuer_publishes",),
    ),
    Bug(
        "a token for several audiences is taken",
        OIDC,
        'claims["aud"] in (self.audience, [self.audience])',
        'self.audience in claims["aud"]',
        (f"{T_OIDC}::TestTheClaims::test_for_another_audience",),
    ),
    Bug(
        "a trust that names no project lets everybody in",
        OIDC,
        "        if not any(faults(entry)):\n",
        "        if entry:\n",
        (f"{T_OIDC}::TestAnEntry::test_that_trusts_too_many_or_nobody_counts_for_nothing",),
    ),
    Bug(
        "a token is taken twice",
        TOKENS,
        "digest=verified.digest,",
        "digest=hex(id(verified)),",
        (f"{T_TOKENS}::TestSpentTokens::test_a_token_is_taken_once",),
    ),
    # --- signing in ---
    Bug(
        "a link counts twice",
        SIGN_IN,
        "links.update(link_until=None)",
        "links.update(created_at=Now())",
        (f"{T_SESSIONS}::TestTheLink",),
    ),
    Bug(
        "a link outlives its run",
        SIGN_IN,
        "if run.state != TestRun.State.OPEN or run.expires_at <= run.now:",
        "if False:",
        (f"{T_SESSIONS}::TestTheLink",),
    ),
    Bug(
        "whoever has the key of an account that is gone is signed in",
        SIGN_IN,
        "if not examine(model, [entry], proven_since=since).ours:",
        "if False:",
        (f"{T_SESSIONS}::TestWhoIsSignedIn",),
    ),
    Bug(
        "an account in a group is signed in",
        SIGN_IN,
        "        privileges.refuse_granted(user)\n",
        "",
        (f"{T_SESSIONS}::TestWhoIsSignedIn",),
    ),
    Bug(
        "a link throws away the visitor's own session",
        "api/signing_in.py",
        "product_request.session = opened.session",
        "product_request.session.update(dict(opened.session.items()))",
        (f"{T_SESSIONS}::TestTheLink",),
    ),
    Bug(
        "a session counts as long as the product's own do",
        SESSIONS,
        "            session.set_expiry(left)\n",
        "            pass\n",
        (T_NOTED,),
    ),
    Bug(
        "a user of a run that has ended logs in",
        SESSIONS,
        "if run.state != TestRun.State.OPEN or left <= dt.timedelta():",
        "if False:",
        (T_NOTED,),
    ),
    Bug(
        "a real account under a recycled key is taken for the run's",
        SESSIONS,
        "if not entry.fingerprint or fingerprints.matches(entry.fingerprint, model, values):",
        "if True:",
        (T_NOTED,),
    ),
    Bug(
        "a session in a cache is looked for under everybody's keys alone",
        SESSIONS,
        "for whose in (CurrentRun(run.pk, run.test_id), None):",
        "for whose in (None,):",
        (T_NOTED,),
    ),
    Bug(
        "a run that closes leaves its sessions",
        PURGE,
        "            sessions.revoke(run)\n",
        "",
        (T_NOTED,),
    ),
    Bug(
        "a run that is cut short leaves its sessions",
        RUNS,
        "if renewed.expires_at < run.expires_at:",
        "if False:",
        (T_NOTED,),
    ),
    Bug(
        "an account that stays can still sign in",
        PURGE,
        "            accounts.disarm(run, proven)\n",
        "            pass\n",
        (T_ACCOUNTS,),
    ),
    Bug(
        "a real account under a recycled key is shut",
        "operations/purge/accounts.py",
        "filter(pk__in=list(found.ours))",
        "filter(pk__in=list(found.rows))",
        (T_ACCOUNTS,),
    ),
    # --- privileges ---
    Bug(
        "a right in disguise may be set",
        PRIVILEGES,
        'return unicodedata.normalize("NFKC", name).casefold()',
        "return name",
        (T_PRIVILEGES,),
    ),
    Bug(
        "a right under another name may be set",
        PRIVILEGES,
        "names = (field.name, field.attname, field.column or field.name)",
        "names = (field.name, field.attname)",
        (T_PRIVILEGES,),
    ),
    Bug(
        "a profile's role is settable by default",
        ENTITIES,
        " or privileges.sounds_like_right(field)",
        "",
        (T_PRIVILEGES,),
    ),
    Bug(
        "a group in a proxy's clothes is none",
        PRIVILEGES,
        "return meta.concrete_model._meta.label_lower in labels",
        "return meta.label_lower in labels",
        (T_PRIVILEGES,),
    ),
    Bug(
        "membership made on the way is no right",
        PRIVILEGES,
        "    if grants_privileges(type(row)):\n        raise PrivilegedAccount\n    if is_account",
        "    if is_account",
        (T_PRIVILEGES,),
    ),
    Bug(
        "a statement may raise an account",
        PRIVILEGES,
        "if not set(rows.all()) <= before:",
        "if False:",
        (T_PRIVILEGES,),
    ),
    Bug(
        "a right that the host names may be held",
        PRIVILEGES,
        "if (label := _label(field)) in named and _counts(getattr(row, field.attname), named[label]):",
        "if False:",
        (T_PRIVILEGES,),
    ),
    Bug(
        "an address may be another's to whoever folds case",
        ADDRESSES,
        "if not (address.isascii() and address.isprintable()):",
        "if False:",
        (T_PRIVILEGES,),
    ),
    Bug(
        "an address is looked for among the accounts alone",
        ADDRESSES,
        "*((column, named | unclaimed) for column in others)]",
        "]",
        (T_PRIVILEGES,),
    ),
    Bug(
        "an address that came by a parameter is not looked at",
        ADDRESSES,
        "        for address in sorted(named & unclaimed):\n",
        "        for address in ():\n",
        (T_PRIVILEGES,),
    ),
    # --- repeated requests ---
    Bug(
        "another request gets the answer of the first under its key",
        IDEMPOTENCY,
        "        if kept.request != self._request:\n            raise IdempotencyMismatch\n",
        "",
        (f"{T_IDEMPOTENCY}::TestAnotherRequest",),
    ),
    Bug(
        "without access keys an idempotency key is everybody's",
        IDEMPOTENCY,
        '_digest(owner, "" if owner else test_id, key)',
        '_digest(owner, "", key)',
        (f"{T_IDEMPOTENCY}::TestAnotherRequest",),
    ),
    Bug(
        "a duplicate is done beside the first",
        POSTGRESQL,
        "            yield alone\n",
        "            yield True\n",
        (f"{T_IDEMPOTENCY}::TestTwoAtOnce",),
    ),
    Bug(
        "an answer is looked for before its lock alone",
        IDEMPOTENCY,
        "            self._look(final=True)\n",
        "",
        (f"{T_IDEMPOTENCY}::TestTwoAtOnce", f"{T_IDEMPOTENCY}::TestTime"),
    ),
    Bug(
        "the answer to a copy of a real row outlives its run",
        PURGE,
        "            idempotency.forget_with_run(run)\n",
        "",
        (f"{T_IDEMPOTENCY}::TestTime",),
    ),
    Bug(
        "a call whose thing outside is not made yet is answered as if it had failed",
        IDEMPOTENCY,
        "        if kept.under_way:\n            raise InProgress\n",
        "",
        (f"{T_IDEMPOTENCY}::TestThingsOutside",),
    ),
    # --- the audit ---
    Bug(
        "the audit's rows can be deleted in raw SQL",
        POSTGRESQL,
        "BEFORE UPDATE OR DELETE ON {on}",
        "BEFORE UPDATE ON {on}",
        (f"{T_TRAIL}::TestAppendOnly",),
    ),
    Bug(
        "a door that is open once is open for good",
        POSTGRESQL,
        " = pg_current_xact_id()::text THEN",
        " <> '' THEN",
        (f"{T_TRAIL}::TestAppendOnly",),
    ),
    Bug(
        "a purge begins without a word",
        PURGE,
        '            trail.record("run.close", run, result=trail.BEGUN)\n',
        "",
        (f"{T_TRAIL}::TestOverTheWire",),
    ),
    Bug(
        "an error in the log quotes what was sent",
        LOGS,
        "    said = without_sent(str(error))\n",
        "    said = str(error)\n",
        (f"{T_CANARY}::TestErrors",),
    ),
    Bug(
        "refusals fill the disk",
        TRAIL,
        "            if spent >= PER_ADDRESS or",
        "            if",
        (f"{T_TRAIL}::TestRefusals",),
    ),
    Bug(
        "an address of IPv6 is told from its neighbour",
        TRAIL,
        "(place, 64)",
        "(place, 128)",
        (f"{T_TRAIL}::TestRefusals",),
    ),
    # --- keys, quotas, rates ---
    Bug(
        "a key counts past its end",
        KEYS,
        "key.revoked_at is None and key.now < key.expires_at",
        "key.revoked_at is None",
        (f"{T_KEYS}::TestVerify",),
    ),
    Bug(
        "a revoked key counts",
        KEYS,
        "key.revoked_at is None and key.now < key.expires_at",
        "key.now < key.expires_at",
        (f"{T_KEYS}::TestVerify",),
    ),
    Bug(
        "a key comes in from anywhere",
        KEYS,
        " and in_time and _comes_from(key.networks, address)",
        " and in_time",
        (f"{T_KEYS}::TestVerify",),
    ),
    Bug(
        "a key's checksum is not looked at",
        KEYS,
        "    if found is None or _checksum(found[1]) != found[4]:\n",
        "    if found is None:\n",
        (f"{T_KEYS}::TestText",),
    ),
    Bug(
        "a former secret counts for ever",
        KEYS,
        "    former = former and key.former_until is not None and key.now < key.former_until\n",
        "",
        (f"{T_KEYS}::TestRotate",),
    ),
    Bug(
        "a secret's hash does not cover the key's id",
        KEYS,
        'value = f"{token.public_id}:{token.secret}"',
        "value = token.secret",
        (f"{T_KEYS}::TestStored",),
    ),
    Bug(
        "an operation is not asked whether the key may do it",
        VIEWS,
        "            self.caller.require(operation=self.operation_name)\n",
        "            pass\n",
        (f"{T_ALLOWANCE}::TestAllowance",),
    ),
    Bug(
        "a row is not asked whether the key may make it",
        ENTITIES,
        "        current_caller().require(entity_types=[type_name])\n",
        "",
        (f"{T_ALLOWANCE}::TestAllowance",),
    ),
    Bug(
        "nobody acts for whoever asks",
        VIEWS,
        "        act_for(self.caller)\n        if not cleaning:\n",
        "        if not cleaning:\n",
        (f"{T_ALLOWANCE}::TestAllowance", f"{T_QUOTAS}::TestRows"),
    ),
    Bug(
        "a run lives longer than its key may have one",
        RUNS,
        "min(cap_minutes(scope), caller.max_minutes or math.inf)",
        "cap_minutes(scope)",
        (f"{T_ALLOWANCE}::TestAllowance",),
    ),
    Bug(
        "a quota is counted without its lock",
        QUOTAS,
        "    _lock(quota.lock)\n",
        "",
        (f"{T_QUOTAS}::TestAtOnce",),
    ),
    Bug(
        "a quota is counted before the making alone",
        ENTITIES,
        "        quotas.settle_rows(self._last + len(things))\n",
        "",
        (f"{T_QUOTAS}::TestAtOnce", f"{T_QUOTAS}::TestRows"),
    ),
    Bug(
        "a bulk call is refused once it is made",
        ENTITIES,
        "    call.require_room(count)\n",
        "",
        (f"{T_QUOTAS}::TestRows",),
    ),
    Bug(
        "an address is counted once its key counts",
        AUTHENTICATION,
        '        refuse_too_many(settings.RATE_PER_ADDRESS, "address", network_of(address))\n',
        "        pass\n",
        ("api/test_throttling.py",),
    ),
    Bug(
        "a statement takes as long as it likes",
        POSTGRESQL,
        '        self.execute(f"SET LOCAL statement_timeout = {max(round(seconds * 1000), 1)}")\n',
        "",
        ("operations/test_statement_timeout.py",),
    ),
    Bug(
        "a default address that another run has is a refusal",
        "operations/addresses.py",
        "            while address in self._own or address in self._others:\n",
        "            while address in self._own:\n",
        ("operations/test_addresses.py",),
    ),
    # --- identity providers ---
    Bug(
        "a user at Clerk needs no proof whose he is",
        CLERK,
        "    if named - {key} or (not named and user.external_id != key):",
        "    if False:",
        (
            f"{T_CLERK}::TestRemoving::test_one_that_does_not_prove_the_key_stays",
            f"{T_CLERK}::TestSigningIn::test_never_of_a_user_who_does_not_carry_the_key",
        ),
    ),
    Bug(
        "a user with another key in his metadata passes for ours",
        CLERK,
        "    if named - {key} or (not named",
        "    if (not named",
        (f"{T_CLERK}::TestRemoving::test_one_that_does_not_prove_the_key_stays",),
    ),
    Bug(
        "any 404 means that a user is gone",
        CLERK,
        'return self.status == 404 and "resource_not_found" in self.codes',
        "return self.status == 404",
        (f"{T_CLERK}::TestRemoving::test_a_404_of_something_on_the_way_is_no_proof_that_it_is_gone",),
    ),
    Bug(
        "a lost answer makes the next attempt fail",
        CLERK,
        "made = self._under(key) if refusal.codes else None",
        "made = None",
        (f"{T_CLERK}::TestMaking::test_whose_answer_is_lost_is_made_once",),
    ),
    Bug(
        "a key that begins with a sign is sought as it is",
        CLERK,
        'sought = f"+{key}" if key[0] in "+-" else key',
        "sought = key",
        (
            f"{T_CLERK}::TestRemoving::test_whose_answer_was_lost_is_found_by_its_key_whatever_that_begins_with",
        ),
    ),
    Bug(
        "a subclass may take the key off",
        CLERK,
        '            "external_id": key,',
        '            "external_id": fields.get("external_id", key),',
        (f"{T_CLERK}::TestMaking::test_another_idea_of_who_gets_one_is_a_subclass",),
    ),
    Bug(
        "an address of Test mode is taken",
        CLERK,
        "        if TEST_MODE_ADDRESS in address.lower():",
        "        if TEST_MODE_ADDRESS == address:",
        (f"{T_CLERK}::TestMaking::test_no_address_that_test_mode_would_open",),
    ),
    Bug(
        "an address that somebody may own is taken",
        CLERK,
        "        if address and not is_reserved(address):",
        "        if not address and not is_reserved(address):",
        (
            f"{T_CLERK}::TestMaking::test_no_address_that_somebody_may_own",
            f"{T_CLERK}::TestMaking::test_an_account_without_an_address_gets_one_that_nobody_can_own",
        ),
    ),
    Bug(
        "the library's own error gets out",
        CLERK,
        "        return None, _refusal(error)",
        "        return None, error",
        (
            f"{T_CLERK}::TestRemoving::test_one_that_is_gone_already_is_no_error",
            f"{T_FAULTS}::TestComingBackLater::test_waits_for_as_long_as_clerk_says",
        ),
    ),
    Bug(
        "users are paged by offsets",
        CLERK,
        "            if latest > since:",
        "            if False:",
        (f"{T_CLERK}::TestTheAudit::test_reads_every_page_also_while_users_go",),
    ),
    Bug(
        "an event's signature is not looked at",
        CLERK,
        "        Webhook(secret).verify(body, dict(headers))",
        "        Webhook(secret)",
        (f"{T_WEBHOOK}::TestWhatIsRefused::test_another_secret",),
    ),
    Bug(
        "the same event counts twice",
        CLERK,
        "    _refuse_seen(headers)\n    try:",
        "    try:",
        (f"{T_WEBHOOK}::TestWhatIsRefused::test_the_same_request_once_more",),
    ),
    Bug(
        "an event may name anything",
        CLERK,
        "not isinstance(user, str) or not _NAME.fullmatch(user)",
        "not isinstance(user, str) or not user",
        (f"{T_WEBHOOK}::TestUserDeleted::test_of_what_is_no_user_changes_nothing",),
    ),
    Bug(
        "a second user under a key is believed",
        IDENTITIES,
        '        if entry.reference not in ("", key, reference):',
        "        if not reference:",
        (f"{T_WEBHOOK}::TestUserCreated::test_of_a_second_user_under_the_same_key_is_not_believed",),
    ),
    Bug(
        "a user who came late opens no books",
        IDENTITIES,
        "            externals.reopen(run, entries.filter(pk=entry.pk), reference)",
        "            pass",
        (f"{T_WEBHOOK}::TestUserCreated::test_of_a_user_who_came_after_the_purge_opens_the_books_again",),
    ),
    Bug(
        "a real row is linked",
        IDENTITIES,
        "rows.filter(Exists(entries_of_outer_row(model, run))).update(",
        "rows.update(",
        (f"{T_CLERK}::TestTheColumn::test_of_a_real_row_under_the_same_key_is_left_as_it_is",),
    ),
    Bug(
        "an account goes without its identity",
        IDENTITIES,
        "    return {pk for pk, key in identities if key[:length] in beginnings}",
        "    return set()",
        (f"{T_CLERK}::TestRemoving::test_a_listed_account_takes_its_user_along_and_no_other",),
    ),
    Bug(
        "an account takes every identity along",
        IDENTITIES,
        "    return {pk for pk, key in identities if key[:length] in beginnings}",
        "    return {pk for pk, key in identities}",
        (f"{T_CLERK}::TestRemoving::test_a_listed_account_takes_its_user_along_and_no_other",),
    ),
    Bug(
        "who is unfit for production makes users there",
        IDENTITIES,
        "    if is_production():",
        "    if False:",
        (f"{T_IDENTITIES}::TestAHostsOwn::test_that_is_unfit_for_production_makes_nobody_there",),
    ),
    Bug(
        "the audit is misled by a purge",
        IDENTITIES,
        "    standing = entries.standing() | entries.filter(removed_at__gte=since)",
        "    standing = entries.standing()",
        (f"{T_CLERK}::TestTheAudit::test_is_not_misled_by_a_purge_that_runs_meanwhile",),
    ),
    Bug(
        "the audit takes another environment's users for leftovers",
        AUDIT,
        "ours = [each for each in some if each.environment == settings.ENVIRONMENT]",
        "ours = list(some)",
        (f"{T_CLERK}::TestTheAudit::test_leaves_out_who_was_made_by_another_environment",),
    ),
    Bug(
        "what was not answered is not waited for",
        EXTERNALS,
        "        if not unanswered:\n",
        "        if True:\n",
        (
            f"{T_IDENTITIES}::TestUnanswered::test_leaves_the_making_under_way",
            f"{T_FAULTS}::TestNoAnswer::test_a_purge_gives_what_was_not_answered_time_to_come",
        ),
    ),
    Bug(
        "an answer that never came empties the reference",
        EXTERNALS,
        'known = {"reference": thing.reference} if thing.reference else {}',
        'known = {"reference": thing.reference}',
        (f"{T_WEBHOOK}::TestUserCreated::test_is_kept_where_the_making_fails_after_it",),
    ),
    Bug(
        "whoever asks for an hour is waited for",
        EXTERNALS,
        "            if later.seconds > handler.patience:",
        "            if False:",
        (f"{T_IDENTITIES}::TestTryLater::test_that_asks_for_more_than_there_is_patience_ends_the_attempts",),
    ),
    Bug(
        "a client says whose user an account is",
        ENTITIES,
        "        never.add(settings.IDENTITY_FIELD)",
        '        never.add("")',
        (f"{T_CLERK}::TestTheColumn::test_is_no_clients_to_set",),
    ),
    Bug(
        "a row of NULLs under a key that was given again is the run's",
        FINGERPRINTS,
        "    if not (has_values or _is_counted_up(model)):\n",
        "    if False:\n",
        (T_FINGERPRINTS,),
    ),
    Bug(
        "what was NULL is not remembered",
        FINGERPRINTS,
        "(_NULL if value is None else _digest(field, value)) in accepted",
        "(accepted == [_NULL] or _digest(field, value) in accepted)",
        (T_FINGERPRINTS,),
    ),
    Bug(
        "a row on the way may have nothing but its key",
        ENTITIES,
        "        if not can_tell_rows(row.model):\n",
        "        if False:\n",
        (T_ENTITIES,),
    ),
    Bug(
        "what fails after the commit is tried again",
        HOOKS,
        "                if not committed or (isinstance(error, TestDataError) and not removing):\n",
        "                if True:\n",
        (T_ENTITIES,),
    ),
    Bug(
        "what a purge leaves to the commit is in nobody's name",
        HOOKS,
        "                with use_run(its):\n",
        "                with use_run(None if removing else its):\n",
        (T_OWN_WAY,),
    ),
    Bug(
        "renewing guards forgets since when they watch",
        GUARDS,
        "            if status.state is State.AWAKE and connections[alias].features.can_rollback_ddl:\n",
        "            if False:\n",
        (f"{T_GUARDS}::TestInstalling",),
    ),
    Bug(
        "a view holds the rows that it shows",
        GRAPH,
        '        if kind == "v" or (',
        "        if (",
        (T_GRAPH,),
    ),
    Bug(
        "a table of another database stops the purge",
        GRAPH,
        "(kind is None and not database(ledger_alias()).has_table(model))",
        "False",
        (T_GRAPH,),
    ),
    Bug(
        "generic pointers within a model go one level a purge",
        GRAPH,
        "not isinstance(each, GenericPointer) or each.anyone_holding(ledger_alias(), first, of_first, Q())",
        "not isinstance(each, GenericPointer)",
        (T_GRAPH,),
    ),
    Bug(
        "a table that no migration makes is not guarded",
        GUARDS,
        "        or model._meta.swapped\n",
        "        or model._meta.swapped or not model._meta.managed\n",
        (f"{T_GUARDS}::TestWhatIsGuarded",),
    ),
    Bug(
        "a factory's own address may be anybody's",
        ADDRESSES,
        '            if "@" in address and not is_reserved(address):\n',
        "            if False:\n",
        (T_ADDRESSES,),
    ),
    *(
        Bug(name, file, old, new, tests, on_sqlite=True)
        for name, file, old, new, tests in (
            (
                "a run looks before it waits for its turn to write",
                SQLITE_RUNS,
                "            self.driver.execute(_LOCK)\n",
                "            pass\n",
                (
                    f"{T_SQLITE_RUNS}::TestTheTriggers::test_are_put_up_in_line_where_somebody_else_is_writing",
                ),
            ),
            (
                "what the end of a transaction took away is not looked for",
                SQLITE,
                " and driver.in_transaction and self.last_run is run\n",
                " and self.last_run is run\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "what has changed in between is not looked for",
                SQLITE_RUNS,
                "        if self._versions != self._read_versions() or",
                "        if self._versions == (-1, -1) or",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a statement of nobody's in between goes unnoticed",
                STATEMENTS,
                "            self._engine.last_run = None\n",
                "",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a statement of the run's that is no write goes unnoticed",
                SQLITE,
                '            if not statement.startswith(("SELECT", "SAVEPOINT", "RELEASE")):\n',
                "            if False:\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a statement writes to the table alone that it names",
                SQLITE_RUNS,
                "        self._follows = execute(_FOLLOWS).fetchone() is not None\n",
                "        self._follows = False\n",
                (f"{T_SQLITE_RUNS}::TestWhatIsWritten",),
            ),
            (
                "references that act by themselves are not looked for",
                SQLITE_RUNS,
                """    " WHERE m.type = 'table' AND""",
                """    " WHERE 0 AND""",
                (f"{T_SQLITE_RUNS}::TestWhatIsWritten",),
            ),
            (
                "a statement that failed has made what it was about to",
                SQLITE,
                "            own.doubt_all()\n",
                "            pass\n",
                (f"{T_SQLITE_RUNS}::TestWhatIsWritten",),
            ),
            (
                "a row that went again in its own statement is entered",
                SQLITE_RUNS,
                "            self.doubted.add(row)\n",
                "            pass\n",
                (f"{T_STATEMENTS}::TestWithinOneStatement",),
            ),
            (
                "in autocommit half of a statement for many stays",
                SQLITE,
                "            own.driver.rollback()\n            raise\n        return done\n",
                "            own.driver.commit()\n            raise\n        return done\n",
                (f"{T_SQLITE_RUNS}::TestWhatIsWritten",),
            ),
            (
                "a row that could not be entered may be committed",
                SQLITE,
                "                self.connection.needs_rollback = True\n",
                "                pass\n",
                (f"{T_STATEMENTS}::TestWithinOneStatement",),
            ),
            (
                "a connection goes on in the name of the run",
                SQLITE_RUNS,
                "        state.run = state.capturing = None\n",
                "        pass\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a run that has ended makes rows all the same",
                SQLITE_TRIGGERS,
                "WHERE id = {RUN}() AND state = 'open'\"",
                'WHERE id = {RUN}()"',
                (f"{T_STATEMENTS}::TestWhatTheProductWrites",),
            ),
            (
                "another run's row is taken for the run's own",
                SQLITE_TRIGGERS,
                ' AND +run_id = {RUN}())"',
                ')"',
                (f"{T_STATEMENTS}::TestTheFence",),
            ),
            (
                "what a schema replaces is not looked for",
                SQLITE_RUNS,
                "        self._replaces = not recursive and",
                "        self._replaces = False and",
                (f"{T_SQLITE_RUNS}::TestSomebodyElsesRow",),
            ),
            (
                "a row in a real one's place is the run's",
                SQLITE_RUNS,
                "        self.foreign.add(row)\n",
                "        pass\n",
                (f"{T_SQLITE_RUNS}::TestSomebodyElsesRow",),
            ),
            (
                "a real row under a key of the run's is the run's",
                SQLITE_RUNS,
                "        self.made.pop(row, None)\n",
                "        pass\n",
                (f"{T_SQLITE_RUNS}::TestSomebodyElsesRow",),
            ),
            (
                "what makes rows for many writes in the run's name",
                STATEMENTS,
                "            params = list(params)",
                "            pass",
                (f"{T_SQLITE_RUNS}::TestSomebodyElsesRow",),
            ),
            (
                "triggers that a rollback took are not counted",
                SQLITE_RUNS,
                " or (self._unsure and self._are_gone()):\n",
                ":\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a statement that took the transaction with it goes unnoticed",
                SQLITE,
                "            self.last_run = None  # it may",
                "            pass  # it may",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "ordinary traffic fails over a column that is gone",
                SQLITE,
                "        if self._runs is None or not _OUTDATED.search(str(error)):\n",
                "        if True:\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a connection that threads share serves a run",
                SQLITE,
                "            if own.guards_any and self.connection.allow_thread_sharing:\n",
                "            if False:\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a connection is kept by what it knows functions by",
                SQLITE_RUNS,
                "        self._statement = _Statement()\n",
                "        self._statement = _Statement()\n        self._statement.keeper = self\n",
                (f"{T_SQLITE_RUNS}::TestTheTriggers",),
            ),
            (
                "a column that a guard names cannot go",
                GUARDS,
                "    elif plan and hindering:\n",
                "    elif False:\n",
                (f"{T_GUARDS}::TestMigrate",),
            ),
            (
                "a real row that has its key again after a failure is the run's",
                SQLITE_TRIGGERS,
                "WHERE ({key_changed}) AND NOT ({of_the_test});",
                "WHERE 0;",
                (f"{T_SQLITE_RUNS}::TestSomebodyElsesRow",),
            ),
            (
                "a commit of nobody's ends what the product has begun",
                SQLITE,
                "        if begun or not self.connection.autocommit:",
                "        if begun:",
                (f"{T_SQLITE_RUNS}::TestWhatIsWritten",),
            ),
            (
                "a cursor that is used again reads ahead of what reads ahead",
                SQLITE,
                "        return cls(cursor._cursor if type(cursor) is cls else cursor)\n",
                "        return cls(cursor)\n",
                (f"{T_SQLITE_RUNS}::TestWhatIsWritten",),
            ),
        )
    ),
)


# --- the code with a bug in it -----------------------------------------------------------------------------


class Workshop:
    """A copy of the code, with a database to itself."""

    def __init__(self, home: Path, number: int, url: str) -> None:
        self.home = home / str(number)
        self.url = with_suffix(url, f"_teeth{number}")
        self.sqlite = f"sqlite:///{self.home / 'db.sqlite3'}"
        self.fresh = True
        self.home.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.home / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, self.home / name)
        # By their content: a bug may come and go within one tick of the file's clock.
        compileall.compile_dir(
            self.home, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )

    def pytest(
        self, tests: Sequence[str], *options: str, on_sqlite: bool = False, seconds: int = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DATABASE_URL": self.sqlite if on_sqlite else self.url,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": str(self.home),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        keep = "--create-db" if self.fresh or on_sqlite else "--reuse-db"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider"]
        command += ["-p", "no:randomly", "--reuse-db", keep, *options, *(f"tests/{each}" for each in tests)]
        self.fresh = self.fresh or not on_sqlite  # until it has come to an end
        try:
            done = subprocess.run(
                command,
                cwd=self.home,
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, -1, f"no end after {seconds} seconds", "")
        if not on_sqlite:
            self.fresh = done.returncode not in (0, 1)
        return done

    def seed(self, bug: Bug) -> Found:
        """Put the bug in, run its tests, take it out."""
        file = self.home / PACKAGE / bug.file
        whole = file.read_text()
        started = time.monotonic()
        if whole.count(bug.old) != 1:
            return Found(bug, None, 0, "the code has changed: it does not apply")
        file.write_text(whole.replace(bug.old, bug.new))
        try:
            done = self.pytest(bug.tests, "-x", on_sqlite=bug.on_sqlite)
        finally:
            file.write_text(whole)
        failed = re.search(r"^FAILED tests/(.+?)(?: - |$)", done.stdout, re.MULTILINE)
        return Found(
            bug,
            failed[1] if failed and done.returncode == 1 else None,
            time.monotonic() - started,
            f"exit status {done.returncode}: {last_line(done.stdout) or last_line(done.stderr)}",
        )


@dataclass(frozen=True, slots=True)
class Found:
    """The test that failed, or None; `said` is how pytest ended."""

    bug: Bug
    test: str | None
    seconds: float
    said: str


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def with_suffix(url: str, suffix: str) -> str:
    """The URL of another database beside this one."""
    address, mark, options = url.partition("?")
    return f"{address}{suffix}{mark}{options}"


# --- all of them -------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    chosen = [(number, bug) for number, bug in enumerate(BUGS, 1) if not asked.only or number in asked.only]
    if asked.list:
        for number, bug in chosen:
            print(f"{number:3} {bug.file}: {bug.name}")
        return 0
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith(("postgres:", "postgresql:")):
        print(MISUSE, file=sys.stderr)
        return 2
    started = time.monotonic()
    with workshops(asked.jobs, url) as shops:
        for on_sqlite in (False, True):
            tests = sorted({test for _, bug in chosen if bug.on_sqlite is on_sqlite for test in bug.tests})
            if not sound(shops, tests, asked.jobs, on_sqlite=on_sqlite):
                return 2
        survived = [found for found in seeded(shops, chosen, asked.jobs) if found.test is None]
    caught = len(chosen) - len(survived)
    print(f"{caught} of {len(chosen)} bugs caught in {time.monotonic() - started:.0f} s")
    return 1 if survived else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.teeth", description="Seed bugs; see tests fail.")
    numbers = range(1, len(BUGS) + 1)
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", choices=numbers, help="these alone")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--list", action="store_true", help="print the bugs and seed none")
    asked = parser.parse_args(arguments)
    if asked.jobs < 1:
        parser.error("--jobs takes a number from 1")
    return asked


Shops = SimpleQueue[Workshop]


@contextmanager
def workshops(count: int, url: str) -> Iterator[Shops]:
    """So many of them, none in use; their databases go with them."""
    with tempfile.TemporaryDirectory(prefix="teeth-") as home:
        made = [Workshop(Path(home), number, url) for number in range(count)]
        free: Shops = SimpleQueue()
        for shop in made:
            free.put(shop)
        try:
            yield free
        finally:
            for shop in made:
                drop_test_database(shop.url)


def drop_test_database(url: str) -> None:
    import environ
    import psycopg

    parsed = environ.Env.db_url_config(url)
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    where = {names[key]: value for key, value in parsed.items() if key in names and value}
    with psycopg.connect(dbname="postgres", autocommit=True, **where) as connection:
        name = psycopg.sql.Identifier(f"test_{parsed['NAME']}")
        connection.execute(psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def sound(free: Shops, tests: Sequence[str], jobs: int, *, on_sqlite: bool) -> bool:
    """Whether all the tests pass as the code is."""

    def run(some: Sequence[str]) -> subprocess.CompletedProcess[str]:
        shop = free.get()
        try:
            return shop.pytest(some, on_sqlite=on_sqlite, seconds=ALL_SECONDS)
        finally:
            free.put(shop)

    shares = [share for share in (tests[start::jobs] for start in range(jobs)) if share]
    with ThreadPoolExecutor(jobs) as pool:
        for done in pool.map(run, shares):
            print(f"without a bug: {last_line(done.stdout) or last_line(done.stderr)}", flush=True)
            if done.returncode:
                print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
                return False
    return True


def seeded(free: Shops, chosen: Sequence[tuple[int, Bug]], jobs: int) -> Iterator[Found]:
    def run(each: tuple[int, Bug]) -> tuple[int, Found]:
        shop = free.get()
        try:
            return each[0], shop.seed(each[1])
        finally:
            free.put(shop)

    with ThreadPoolExecutor(jobs) as pool:
        for number, found in pool.map(run, chosen):
            result = f"caught by {found.test}" if found.test else f"NOT CAUGHT ({found.said})"
            print(f"{number:3} {found.seconds:5.1f} s  {found.bug.name}: {result}", flush=True)
            yield found


if __name__ == "__main__":
    sys.exit(main())
