"""scripts/cluster-up: its calls of kind, kubectl and the others, and what it prints."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.cluster.kubectl_answers import changes, deployment, item, namespace_with

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
EVENTING = ("eventing-crds", "eventing-core", "in-memory-channel", "mt-channel-broker")
IMAGES = ["dev.local/shangcai/web:0.1.0", "dev.local/shangcai/predictor:0.1.0"]

Line = Callable[[subprocess.CompletedProcess[str]], str]


def test_a_bare_machine_gets_everything_in_order(bare: Any) -> None:
    ended = bare.run("cluster-up")
    assert ended.returncode == 0, ended.stderr
    short = [call.split("https://github.com/")[-1] for call in changes(bare.calls)]
    starts = [
        "kind create cluster --name shangcai --image kindest/node:v1.34.0@sha256:",
        "cert-manager/cert-manager/releases/download/v1.17.0/cert-manager.yaml",
        "kubectl annotate namespace cert-manager",
        "knative/serving/releases/download/knative-v1.21.1/serving-crds.yaml",
        "knative/serving/releases/download/knative-v1.21.1/serving-core.yaml",
        "kubectl annotate namespace knative-serving",
        "knative-extensions/net-kourier/releases/download/knative-v1.21.0/kourier.yaml",
        'kubectl patch configmap config-network -n knative-serving --type=merge -p {"data": {"ingress-class": "kourier',
        "kubectl patch configmap config-domain",
        "kubectl rollout restart deployment/activator deployment/autoscaler -n knative-serving",
        "kubectl patch service kourier",
        "kubectl annotate namespace kourier-system",
        "kubectl apply -f -",
        "kserve/kserve/releases/download/v0.21.0/kserve.yaml",
        "kubectl patch configmap inferenceservice-config -n kserve",
        "kubectl rollout restart deployment/kserve-controller-manager -n kserve",
        "kubectl scale deployment llmisvc-controller-manager",
        "kubectl annotate namespace kserve",
        "kubectl apply --server-side --force-conflicts --field-manager=shangcai -k knative/cluster",
        "docker save --output",
        "kind load image-archive",
        "kubectl annotate namespace kube-system --overwrite shangcai.ai/cluster-up=sha256:1 sha256:2",
        "kubectl apply -k deploy/laptop",
        "curl http://127.0.0.1:8080/generate -H Host: web.shangcai.127.0.0.1.sslip.io",
    ]
    assert len(short) == len(starts), short
    for call, start in zip(short, starts, strict=True):
        assert call.startswith(start)
    assert "今朝雨作泥。" in ended.stdout
    assert "scripts/doctor --url http://127.0.0.1:8080 --host web.shangcai.127.0.0.1.sslip.io" in ended.stdout


def test_events_bring_eventing_and_their_own_overlay(bare: Any) -> None:
    ended = bare.run("cluster-up", "--events")
    assert ended.returncode == 0, ended.stderr
    calls = [call for call in changes(bare.calls) if "eventing" in call or "-k " in call]
    starts = [
        *(f"https://github.com/knative/eventing/releases/download/knative-v1.21.1/{name}.yaml" for name in EVENTING),
        "namespace knative-eventing --overwrite shangcai.ai/cluster-up=Knative Eventing 1.21.1",
        "-k knative/cluster",
        "-k knative/cluster/eventing",
        "-k deploy/laptop-events",
    ]
    assert len(calls) == len(starts), calls
    for call, start in zip(calls, starts, strict=True):
        assert call.endswith(start)
    assert any("brokers.eventing.knative.dev,triggers.eventing" in call for call in bare.calls)


def test_without_events_nothing_is_asked_of_eventing(bare: Any) -> None:
    bare.run("cluster-up")
    assert not any("eventing" in call for call in bare.calls)


def test_that_things_wait_for_each_other_is_said_to_be_normal(finished: Any) -> None:
    finished.answer("apply -k deploy/laptop", errors="Warning: Sorting order\n")
    ended = finished.run("cluster-up")
    assert "each waits for another's address: that is normal" in ended.stdout
    assert "Warning" not in ended.stdout + ended.stderr


def test_other_ingress_settings_of_kserve_are_kept(bare: Any) -> None:
    bare.run("cluster-up")
    [call] = [call for call in bare.calls if "patch configmap inferenceservice-config" in call]
    patch = json.loads(call.split(" -p ")[1])
    assert json.loads(patch["data"]["ingress"]) == {"urlScheme": "http", "disableIstioVirtualHost": True}


def test_the_node_is_labelled_with_its_maker_and_port(bare: Any) -> None:
    bare.run("cluster-up", "--port", "9090")
    config = bare.stdin("kind create cluster")
    assert "shangcai.ai/made-by: cluster-up" in config
    assert 'shangcai.ai/port: "9090"' in config
    assert "hostPort: 9090" in config
    assert bare.calls[-1].startswith("curl http://127.0.0.1:9090/generate")


def test_run_again_it_skips_what_is_done_and_says_so(finished: Any) -> None:
    ended = finished.run("cluster-up", "--port", "9090")
    assert ended.returncode == 0, ended.stderr
    assert [call.split(" -H ")[0] for call in changes(finished.calls)] == [
        "kubectl apply --server-side --force-conflicts --field-manager=shangcai -k knative/cluster",
        "kubectl apply -k deploy/laptop",
        "curl http://127.0.0.1:8080/generate",  # the port it was made with
    ]
    for line in ("the cluster shangcai is there, on port 8080", "KServe 0.21.0 is there", "the images are on the node"):
        assert line in ended.stdout


def test_another_version_of_a_component_is_replaced(finished: Any) -> None:
    finished.answer("get namespace kserve", namespace_with("KServe 0.17.0"))
    ended = finished.run("cluster-up")
    assert "installing KServe 0.21.0" in ended.stdout
    assert any("kserve.yaml" in call for call in finished.calls)
    assert not any("serving-core.yaml" in call for call in finished.calls)


def test_images_that_changed_are_loaded_again(finished: Any) -> None:
    finished.answer("image inspect", "sha256:3\nsha256:4\n")
    finished.run("cluster-up")
    assert [call.split()[:2] for call in finished.calls if "docker save" in call or "kind load" in call] == [
        ["docker", "save"],
        ["kind", "load"],
    ]


def test_what_is_not_served_yet_is_applied_again(finished: Any) -> None:
    finished.answer("-k deploy/laptop", errors="no matches for kind", status=1, times=1)
    assert finished.run("cluster-up").returncode == 0
    assert sum("-k deploy/laptop" in call for call in finished.calls) == 2


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ({"kind", "docker", "curl"}, "kubectl is needed, and it is not on the PATH"),
        ({"kubectl", "docker", "curl"}, "kind or minikube is needed, and neither is on the PATH"),
        ({"kubectl", "kind", "curl"}, "docker or podman is needed, and neither is on the PATH"),
        ({"kubectl", "kind", "docker"}, "curl is needed, and it is not on the PATH"),
    ],
)
def test_a_missing_tool_is_one_line(machine: Any, one_line: Line, there: set[str], missing: str) -> None:
    machine.have(*there)
    assert one_line(machine.run("cluster-up")) == f"scripts/cluster-up: {missing}"
    assert machine.calls == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("kind create cluster", "making a kind cluster: `kind create"),
        ("cert-manager.yaml", "cert-manager: `kubectl"),
        ("serving-core.yaml", "Knative Serving: `kubectl"),
        ("patch service kourier", "Kourier: `kubectl"),
        ("kserve.yaml", "KServe: `kubectl"),
        ("-k knative/cluster", "knative/cluster: `kubectl"),
        ("docker save", "saving the images: `docker"),
        ("kind load", "loading the images into the cluster: `kind"),
        ("-k deploy/laptop", "deploy/laptop: `kubectl"),
        ("curl", "asking for a poem: `curl"),
    ],
)
def test_each_step_that_fails_ends_it_in_one_line(bare: Any, one_line: Line, call: str, said: str) -> None:
    bare.answer(call, errors="something else\nthe reason\n", status=3)
    line = one_line(bare.run("cluster-up", "--timeout", "3"))
    assert line.startswith(f"scripts/cluster-up: {said}")
    assert "ended with 3: the reason" in line


@pytest.mark.parametrize("call", ["kind create cluster", "cert-manager.yaml", "kind load", "curl"])
def test_a_step_that_hangs_is_ended(bare: Any, one_line: Line, call: str) -> None:
    bare.answer(call, hangs=600)
    assert "took longer than" in one_line(bare.run("cluster-up", "--timeout", "2"))


def test_waiting_names_what_is_waited_for_and_ends(bare: Any, one_line: Line) -> None:
    bare.answer("get deployments -n kserve", {"items": [deployment("kserve-controller-manager", available=0)]})
    ended = bare.run("cluster-up", "--timeout", "1")
    assert "KServe waits for kserve-controller-manager\n" in ended.stdout
    line = one_line(ended)
    assert line.startswith(
        "scripts/cluster-up: KServe does not run after 1 s: kserve-controller-manager; look at: kubectl"
    )
    assert not any("deploy/laptop" in call for call in bare.calls)


def test_a_deployment_that_is_being_replaced_is_waited_for(bare: Any, one_line: Line) -> None:
    bare.answer("get deployments -n kserve", {"items": [deployment("kserve-controller-manager", generation=2)]})
    assert "KServe does not run" in one_line(bare.run("cluster-up", "--timeout", "1"))


def test_what_does_not_become_ready_gives_its_reason(finished: Any, one_line: Line) -> None:
    objects = [
        item("Service", "web", "True"),
        item("InferenceService", "text", "False", "RevisionFailed"),
    ]
    finished.answer("get services.serving.knative.dev,", {"items": objects})
    line = one_line(finished.run("cluster-up", "--timeout", "1"))
    assert (
        "after 1 s: InferenceService text (RevisionFailed); look at: kubectl --context kind-shangcai get pods" in line
    )


def test_progress_is_said_once(finished: Any) -> None:
    finished.answer("get services.serving.knative.dev,", {"items": [item("Service", "web", "Unknown")]}, times=1)
    ended = finished.run("cluster-up")
    assert ended.returncode == 0
    assert ended.stdout.count("deploy/laptop waits for Service web\n") == 1


def test_an_answer_without_a_poem_is_a_failure(finished: Any, one_line: Line) -> None:
    finished.answer("curl", "<html>a proxy</html>")
    assert "does not answer with a text but with '<html>a proxy" in one_line(finished.run("cluster-up"))


def test_a_cluster_of_somebody_else_is_left_alone(finished: Any, one_line: Line) -> None:
    finished.answer("get nodes", {"items": []})
    assert "that this script did not make; choose another name" in one_line(finished.run("cluster-up"))
    assert changes(finished.calls) == []
    assert "was not made by scripts/cluster-up" in one_line(finished.run("cluster-down"))
    assert changes(finished.calls) == []


def test_a_cluster_that_does_not_answer_is_left_alone(finished: Any, one_line: Line) -> None:
    finished.answer("kubectl", errors="connection refused", status=1)
    assert "is there but does not answer" in one_line(finished.run("cluster-up"))
    line = one_line(finished.run("cluster-down"))
    assert line.endswith("does not say who made it; `kind delete cluster --name shangcai` removes it all the same")
    assert changes(finished.calls) == []


def test_minikube_and_podman_do_as_well(bare: Any) -> None:
    for name in ("kind", "docker"):
        (bare.bin / name).unlink()
    bare.have("minikube", "podman")
    bare.answer("minikube profile list", {"valid": [{"Name": "minikube"}]})
    ended = bare.run("cluster-up")
    assert ended.returncode == 0, ended.stderr
    [start] = [call for call in bare.calls if call.startswith("minikube start -p shangcai --driver=podman")]
    assert "--ports=127.0.0.1:8080:31080" in start
    assert "node-labels=shangcai.ai/made-by=cluster-up,shangcai.ai/port=8080" in start
    assert any(call.startswith("minikube -p shangcai image load /") for call in bare.calls)
    assert all("--context shangcai " in call for call in bare.calls if call.startswith("kubectl"))


def test_a_dry_run_runs_nothing_and_needs_nothing(machine: Any) -> None:
    ended = machine.run("cluster-up", "--dry-run", "--", "--torch-index", "https://torch.example")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert machine.calls == []
    commands = [shlex.split(line)[0] for line in ended.stdout.splitlines() if line.startswith(("kind ", "kubectl "))]
    assert len(commands) >= 20
    assert (
        "scripts/build-images --tool docker --prefix dev.local/shangcai --torch cpu --torch-index https://torch.example"
        in ended.stdout
    )


@pytest.mark.parametrize("flags", [[], ["--events"]])
def test_a_dry_run_shows_what_is_run_on_a_bare_machine(bare: Any, flags: list[str]) -> None:
    shown = bare.run("cluster-up", "--dry-run", *flags).stdout
    bare.run("cluster-up", *flags)
    for call in changes(bare.calls):
        if call.startswith("kubectl apply"):
            assert call.replace("kubectl ", "kubectl --context kind-shangcai ") in shown


@pytest.mark.parametrize("overlay", ["laptop", "laptop-events"])
def test_the_images_are_those_that_the_overlay_names(overlay: str) -> None:
    kubectl = ["kubectl", "kustomize", str(ROOT / "deploy" / overlay)]
    manifests = subprocess.run(kubectl, capture_output=True, text=True, check=True).stdout
    used = {line.split()[-1] for line in manifests.splitlines() if "image: dev.local/" in line}
    assert used == set(IMAGES)
