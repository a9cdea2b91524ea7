"""The tables of the models, for statements without objects."""

from yaptide.persistence import models
from yaptide.persistence.models.base import table_of

USER = table_of(models.UserModel)
LOCAL = table_of(models.YaptideUserModel)
KEYCLOAK = table_of(models.KeycloakUserModel)
SESSION = table_of(models.SessionModel)
TOKEN = table_of(models.TokenModel)
CLUSTER = table_of(models.ClusterModel)
RUNNER = table_of(models.RunnerModel)
RUNNER_SIMULATOR = table_of(models.RunnerSimulatorModel)
SIMULATION = table_of(models.SimulationModel)
CELERY_SIMULATION = table_of(models.CelerySimulationModel)
BATCH_SIMULATION = table_of(models.BatchSimulationModel)
BATCH_ARRAY = table_of(models.BatchArrayModel)
HISTORY = table_of(models.StateHistoryModel)
TASK = table_of(models.TaskModel)
CELERY_TASK = table_of(models.CeleryTaskModel)
BATCH_TASK = table_of(models.BatchTaskModel)
SUBMISSION_KEY = table_of(models.SubmissionKeyModel)
INPUT = table_of(models.InputModel)
ESTIMATOR = table_of(models.EstimatorModel)
PAGE = table_of(models.PageModel)
LOGFILES = table_of(models.LogfilesModel)
