"""flwr's own SecAgg+ for one round, in one process: run with the interpreter of .venv-flwr.

    python flwr_peer.py NODES WORDS DROPPED SHARES THRESHOLD

Its workflow and its client mod are the framework's; only the grid between them is a stand-in that
calls the mod of each node. Every node keeps its own context. The chosen nodes fall silent after
they have shared their keys. Printed is one JSON object; seconds are CPU of the process.
"""

import copy
import json
import logging
import os
import resource
import sys
import time
from statistics import median

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext, ServerConfig, SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.supercore.task_identity import TaskIdentity

STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")


class Proxy(ClientProxy):
    """A name; nothing is asked of it directly."""

    def __init__(self, node):
        super().__init__(str(node))
        self.node_id = node

    def _refuse(self, *_args, **_kwargs):
        raise NotImplementedError

    get_properties = get_parameters = fit = evaluate = reconnect = _refuse


class Grid:
    """Calls each node's mod; nodes in `silent` do not answer from the third stage on."""

    def __init__(self, vectors, silent):
        self.vectors, self.silent = vectors, silent
        self.contexts = {node: Context(1, node, {}, RecordDict(), {}) for node in vectors}
        self.stage, self.client_s, self.sent = -1, {}, {}

    def send_and_receive(self, messages, *, timeout=None):
        self.stage += 1
        answers = []
        for message in messages:
            node = message.metadata.dst_node_id
            if self.stage >= 2 and node in self.silent:
                continue
            mine = copy.deepcopy(message)  # the client takes entries out of the record
            TaskIdentity.node_id = node
            began = time.process_time()
            answer = secaggplus_mod(mine, self.contexts[node], self.train)
            self.client_s.setdefault(node, []).append(time.process_time() - began)
            TaskIdentity.node_id = 1
            size = sum(
                len(part)
                for record in answer.content.config_records.values()
                for value in record.values()
                for part in (value if isinstance(value, list) else [value])
                if isinstance(part, bytes)
            )
            self.sent[node] = self.sent.get(node, 0) + size
            answers.append(answer)
        return answers

    def train(self, message, context):
        result = FitRes(
            status=Status(Code.OK, ""),
            parameters=ndarrays_to_parameters([self.vectors[context.node_id]]),
            num_examples=1,
            metrics={},
        )
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def main():
    nodes, words, dropped, shares = map(int, sys.argv[1:5])
    threshold = float(sys.argv[5])
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    names = list(range(2, nodes + 2))
    vectors = {node: np.frombuffer(os.urandom(4 * words), np.int32) / 2.0**31 for node in names}
    grid = Grid(vectors, set(names[:dropped]))
    manager = SimpleClientManager()
    for node in names:
        manager.register(Proxy(node))
    strategy = FedAvg(
        fraction_fit=1.0,
        min_fit_clients=nodes,
        min_available_clients=nodes,
        accept_failures=True,
        fraction_evaluate=0.0,
    )
    context = LegacyContext(
        Context(1, 1, {}, RecordDict(), {}),
        config=ServerConfig(num_rounds=1),
        strategy=strategy,
        client_manager=manager,
    )
    start = ndarrays_to_parameters([np.zeros(words)])
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(start, True)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    workflow = SecAggPlusWorkflow(
        num_shares=shares, reconstruction_threshold=threshold, max_weight=1.0, clipping_range=1.0
    )
    state, hub = WorkflowState(), {}
    for stage in STAGES:
        began, inside = time.process_time(), sum(map(sum, grid.client_s.values()))
        ok = getattr(workflow, f"{stage}_stage")(grid, context, state)
        inside = sum(map(sum, grid.client_s.values())) - inside
        hub[stage] = time.process_time() - began - inside
        if not ok:
            raise SystemExit(f"stage {stage} failed")
    got = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    mean = np.mean([vectors[node] for node in names[dropped:]], axis=0)
    error = float(np.abs(parameters_to_ndarrays(got)[0] - mean).max())
    whole = [sum(one) for node, one in grid.client_s.items() if node not in grid.silent]
    told = {
        "client_s": median(whole),
        "upload_bytes": max(grid.sent.values()),
        "hub_s": hub,
        "error": error,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "threshold": state.threshold,
        "shares": state.num_shares,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
