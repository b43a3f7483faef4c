"""Where in a body an error is, as its sender wrote it.

pydantic also names the branches of unions that it has tried, which are no keys of the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag

Path = tuple[int | str, ...]

_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}


@dataclass(frozen=True)
class Fork:
    """The union that an error has passed: where it stands, which branch was tried, and what may stand there."""

    path: Path
    branch: int | str
    members: Sequence[Any]

    @property
    def detail(self) -> str:
        """What may stand there, in words."""
        words = [word for member in self.members for word in _words(_choices(member)[0])]
        return f"must be one of {', '.join(words[:-1])}, or {words[-1]}"


@dataclass(frozen=True)
class FieldPlace:
    """See the module."""

    path: Path
    owner: type[BaseModel]
    """The model of the object that the last part of the path is in."""
    fork: Fork | None
    """The last union on the way."""
    of_name: bool
    """Whether the name of a member is meant, and not its value."""

    @property
    def fields_beside(self) -> Iterable[str]:
        return (field.alias or name for name, field in self.owner.model_fields.items())

    @classmethod
    def of(cls, body: type[BaseModel], location: Path) -> FieldPlace:
        """The place of this `loc` of an error."""
        path: Path = ()
        owner, fork, here = body, None, body
        for part in location:
            choices = _choices(here)
            if len(choices) > 1:
                fork = Fork(path, part, choices)
                here = _branch(choices, part)
            elif part != "[key]":
                [choice] = choices
                owner = choice if _is_model(choice) else owner
                here = _inside(choice, part)
                path = (*path, part)
        return cls(path, owner, fork, of_name=location[-1:] == ("[key]",))


def _choices(annotation: Any) -> list[Any]:
    """The members of a union, without None; of anything else itself, without its metadata."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    members = [member for member in get_args(annotation) if member is not NoneType]
    return _choices(members[0]) if len(members) == 1 else members


def _branch(members: Sequence[Any], name: int | str) -> Any:
    """The member that pydantic names so: by its tag, or by the name of its class."""
    models = [(member, model) for member in members if _is_model(model := _choices(member)[0])]
    for member, model in models:
        tags = [data.tag for data in getattr(member, "__metadata__", ()) if isinstance(data, Tag)]
        kind = model.model_fields.get("type")
        if name in (model.__name__, *tags, *(get_args(kind.annotation) if kind else ())):
            return model
    return models[0][1] if len(models) == 1 else Any


def _inside(annotation: Any, part: int | str) -> Any:
    """What stands in a value of this type at a key or a place."""
    if _is_model(annotation):
        fields = annotation.model_fields
        found = next((field for name, field in fields.items() if part in (name, field.alias)), None)
        return Any if found is None else found.annotation
    arguments = get_args(annotation)
    return arguments[-1] if arguments and get_origin(annotation) in (list, dict, Sequence, Mapping) else Any


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if _is_model(annotation):
        required = [field.alias or name for name, field in annotation.model_fields.items() if field.is_required()]
        return [f"an object with {' and '.join(required)}" if required else "an object"]
    return [_WORDS.get(get_origin(annotation) or annotation, "an object")]
