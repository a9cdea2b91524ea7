"""The tables, one module per subject."""

from yaptide.persistence.models.base import Base
from yaptide.persistence.models.clusters import ClusterModel
from yaptide.persistence.models.inputs import InputModel
from yaptide.persistence.models.logfiles import LogfilesModel
from yaptide.persistence.models.results import EstimatorModel, PageModel
from yaptide.persistence.models.runners import RunnerModel, RunnerSimulatorModel
from yaptide.persistence.models.simulations import (
    BatchArrayModel,
    BatchSimulationModel,
    CelerySimulationModel,
    SimulationModel,
    StateHistoryModel,
)
from yaptide.persistence.models.submission_keys import SubmissionKeyModel
from yaptide.persistence.models.tasks import BatchTaskModel, CeleryTaskModel, TaskModel
from yaptide.persistence.models.users import KeycloakUserModel, SessionModel, TokenModel, UserModel, YaptideUserModel

__all__ = [
    "Base",
    "BatchArrayModel",
    "BatchSimulationModel",
    "BatchTaskModel",
    "CelerySimulationModel",
    "CeleryTaskModel",
    "ClusterModel",
    "EstimatorModel",
    "InputModel",
    "KeycloakUserModel",
    "LogfilesModel",
    "PageModel",
    "RunnerModel",
    "RunnerSimulatorModel",
    "SessionModel",
    "SimulationModel",
    "StateHistoryModel",
    "SubmissionKeyModel",
    "TaskModel",
    "TokenModel",
    "UserModel",
    "YaptideUserModel",
]
